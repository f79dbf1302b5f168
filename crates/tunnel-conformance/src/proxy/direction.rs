//! One direction of a connection.
//!
//! Invariants: a step does exactly one thing or nothing, so its future can be dropped at any await.
//! Bytes get their delivery time when they are read, and reading continues while earlier bytes
//! wait, so that a delay is a latency and does not limit the throughput.

use std::future::pending;
use std::io;

use bytes::buf::Limit;
use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep_until};

use super::books::Way;
use super::line::{Cargo, Line, Parcel};
use super::shared::Shared;

/// The most bytes in one read.
const CHUNK: usize = 64 << 10;
/// With less free space than this in the buffer, a new buffer is allocated, to avoid small reads.
const SPACE: usize = 8 << 10;

/// Forwards bytes from one socket to the other.
pub(super) struct Direction<'a> {
    shared: &'a Shared,
    way: Way,
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    source: Source,
    sink: Sink,
    line: Line,
    buffer: BytesMut,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Open,
    /// Writing to the socket showed a reset. Bytes from before the reset may still be readable.
    Lost,
    /// There is nothing more to read.
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sink {
    Open,
    /// The end of the stream was sent.
    Ended,
    /// The socket accepts no more bytes.
    Lost,
}

/// The result of a step.
pub(super) enum Step {
    /// Something moved.
    Moved,
    /// The receiver is gone. The opposite direction must deliver that to the sender.
    SinkLost,
    /// The sender is gone, and its reset is due at the receiver.
    Reset,
}

/// The result of a read, and its delivery time.
struct Taken {
    due: Instant,
    count: io::Result<usize>,
}

/// The result of a delivery.
enum Delivered {
    Bytes(usize),
    End,
    Reset,
}

impl<'a> Direction<'a> {
    pub(super) fn new(shared: &'a Shared, way: Way, from: ReadHalf<'a>, to: WriteHalf<'a>) -> Self {
        Self {
            shared,
            way,
            from,
            to,
            source: Source::Open,
            sink: Sink::Open,
            line: Line::default(),
            buffer: BytesMut::new(),
        }
    }

    /// Whether the end of the stream was delivered.
    pub(super) fn is_over(&self) -> bool {
        self.sink == Sink::Ended
    }

    /// Called when writing to the socket that this direction reads from has failed. Its peer must
    /// have sent a reset, even if reading shows a clean end: the failed write consumed the error.
    pub(super) fn source_lost(&mut self) {
        match self.source {
            Source::Open => self.source = Source::Lost,
            Source::Lost => {}
            Source::Over => self.line.push(self.shared.due(), Cargo::Reset),
        }
    }

    /// Reads some bytes, or delivers some.
    pub(super) async fn step(&mut self) -> Step {
        let room = self.line.room();
        let reads = self.source != Source::Over && room > 0;
        let next = self.line.first().filter(|_| self.sink != Sink::Lost);
        if self.buffer.capacity() < SPACE {
            self.buffer = BytesMut::with_capacity(CHUNK);
        }
        let space = (&mut self.buffer).limit(room);
        // Neither branch has priority: much to deliver must not delay the time stamps of reads, and
        // much to read must not delay deliveries.
        tokio::select! {
            taken = take(self.shared, self.way, &mut self.from, space), if reads => {
                self.taken(taken);
                Step::Moved
            }
            delivered = deliver(self.shared, self.way, &mut self.to, next) => {
                self.delivered(delivered)
            }
        }
    }

    fn taken(&mut self, Taken { due, count }: Taken) {
        let cargo = match count {
            Ok(0) if self.source == Source::Open => Cargo::End,
            Ok(0) | Err(_) => Cargo::Reset,
            Ok(_) => Cargo::Bytes(self.buffer.split().freeze()),
        };
        if !matches!(cargo, Cargo::Bytes(_)) {
            self.source = Source::Over;
        }
        self.line.push(due, cargo);
    }

    fn delivered(&mut self, delivered: io::Result<Delivered>) -> Step {
        match delivered {
            Ok(Delivered::Bytes(count)) => self.line.delivered(count),
            Ok(Delivered::End) => {
                self.line.delivered(0);
                self.sink = Sink::Ended;
            }
            Ok(Delivered::Reset) => return Step::Reset,
            Err(_) => {
                self.sink = Sink::Lost;
                return Step::SinkLost;
            }
        }
        Step::Moved
    }
}

/// Reads once. Bytes get their delivery time before they are counted. So a test that has seen the
/// count can change the delay without affecting these bytes.
async fn take(
    shared: &Shared,
    way: Way,
    from: &mut ReadHalf<'_>,
    mut space: Limit<&mut BytesMut>,
) -> Taken {
    let reading = async {
        let count = from.read_buf(&mut space).await;
        let due = shared.due();
        if let Ok(count) = count {
            shared.books.meter(way).taken(count);
        }
        Taken { due, count }
    };
    shared.gate.pass(Some(way), reading).await
}

/// Waits until the next parcel is due and writes once. Without a parcel it waits forever.
async fn deliver(
    shared: &Shared,
    way: Way,
    to: &mut WriteHalf<'_>,
    next: Option<&Parcel>,
) -> io::Result<Delivered> {
    let Some(Parcel { due, cargo }) = next else {
        return pending().await;
    };
    if *due > Instant::now() {
        sleep_until(*due).await;
    }
    let writing = async {
        match cargo {
            Cargo::Bytes(bytes) => {
                let count = to.write(bytes).await?;
                shared.books.meter(way).delivered(count);
                Ok(Delivered::Bytes(count))
            }
            Cargo::End => to.shutdown().await.map(|()| Delivered::End),
            Cargo::Reset => Ok(Delivered::Reset),
        }
    };
    shared.gate.pass(Some(way), writing).await
}
