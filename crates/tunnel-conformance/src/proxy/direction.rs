//! One direction of one connection.
//!
//! Invariants: a step either did one thing or nothing, so it can be dropped at any await. What was
//! taken is stamped at once with the time when it is due; reading goes on while earlier bytes wait
//! for theirs, which is what makes the delay a latency.

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

/// How much is read at once, at most.
const CHUNK: usize = 64 << 10;
/// With less space than this left in the buffer, a new one is cheaper than more reads.
const SPACE: usize = 8 << 10;

/// Carries what one socket says to the other.
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
    /// It was reset, as writing to it has told; there may be bytes to read that came before.
    Lost,
    /// There is nothing more to read.
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sink {
    Open,
    /// It was told the end.
    Ended,
    /// It takes no more.
    Lost,
}

/// What came of a step.
pub(super) enum Step {
    /// Something moved.
    Moved,
    /// The receiving socket's own end is gone, which that end's direction must tell the sender.
    SinkLost,
    /// The sender is gone, and it is time for the receiver to hear of it.
    Reset,
}

/// What came of a read, and when it is due at the other end.
struct Taken {
    due: Instant,
    count: io::Result<usize>,
}

/// What was delivered.
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

    /// Whether its end has been delivered.
    pub(super) fn is_over(&self) -> bool {
        self.sink == Sink::Ended
    }

    /// Writing to the socket that this direction reads from has failed. A reset is what its end
    /// must have sent, even if there is an orderly end to read: the failed write took the error.
    pub(super) fn source_lost(&mut self) {
        match self.source {
            Source::Open => self.source = Source::Lost,
            Source::Lost => {}
            Source::Over => self.line.push(self.shared.due(), Cargo::Reset),
        }
    }

    /// Does the next thing: reads some bytes, or delivers some.
    pub(super) async fn step(&mut self) -> Step {
        let room = self.line.room();
        let reads = self.source != Source::Over && room > 0;
        let next = self.line.first().filter(|_| self.sink != Sink::Lost);
        if self.buffer.capacity() < SPACE {
            self.buffer = BytesMut::with_capacity(CHUNK);
        }
        let space = (&mut self.buffer).limit(room);
        // Neither goes first: with much to deliver, what is read must still be stamped in time,
        // and with much to read, what is due must still leave.
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

/// Reads once. What was read is stamped before it is counted, so that whoever has seen the count
/// can change the delay without changing when this is due.
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

/// Waits until the next parcel is due, and writes once; without one, waits for ever.
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
