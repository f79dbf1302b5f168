//! The runtime of one end: a task that moves bytes between a socket and a
//! [`Connection`].
//!
//! The state machine does nothing by itself. It gets received frames, operations
//! and the time. After each input the driver takes events and frames to send from
//! it, and asks when to call it next. One turn of [`Driver::run`] is one such
//! round.
//!
//! The driver reads and writes at the same time. If both ends stopped reading
//! until all was written, each could wait for ever with a full socket.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tunnel_core::frame::framing::{Deframer, FrameWriter};
use tunnel_core::{
    Config, Connection, ConnectionError, EndReason, Event, Offer, Side, TransportCause,
    TransportError,
};

use crate::call::Op;
use crate::calls::Calls;

/// How much is read from the socket at a time, in bytes.
const READ_SIZE: usize = 64 << 10;

/// The size of a batch of frames, in bytes: large enough to share the cost of a
/// write among many frames, small enough that later frames do not wait long.
const WRITE_BUDGET: usize = 64 << 10;

/// The time that a tunnel has after its end to send its last frames, and again to
/// receive the peer's.
const FAREWELL: Duration = Duration::from_secs(5);

/// One end of a tunnel, with its socket.
pub(crate) struct Driver<S> {
    conn: Connection,
    calls: Calls,
    ops: mpsc::UnboundedReceiver<Op>,
    ended: watch::Sender<Option<EndReason>>,
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    deframer: Deframer,
    inbound: Box<[u8]>,
    outbound: BytesMut,
    /// Something was written since the socket was last flushed.
    unflushed: bool,
    /// Set when nothing can be written any more.
    mute: Option<Mute>,
}

/// Why nothing can be written, and until when to read on: the peer may have sent
/// everything before it closed.
struct Mute {
    error: io::Error,
    until: std::time::Instant,
}

impl<S: AsyncRead + AsyncWrite> Driver<S> {
    pub(crate) fn new(
        side: Side,
        config: Config,
        socket: S,
        calls: Calls,
        ops: mpsc::UnboundedReceiver<Op>,
        ended: watch::Sender<Option<EndReason>>,
    ) -> Self {
        let (reader, writer) = tokio::io::split(socket);
        Self {
            deframer: Deframer::new(config.max_frame_size()),
            conn: Connection::new(side, config),
            calls,
            ops,
            ended,
            reader,
            writer,
            inbound: vec![0; READ_SIZE].into(),
            outbound: BytesMut::new(),
            unflushed: false,
            mute: None,
        }
    }

    /// Drives the tunnel to its end, and then serves the remaining handles: data that
    /// has arrived can still be read.
    pub(crate) async fn run(mut self) {
        // Without an outer call there are no headers with the peer's offer. Both
        // ends run this program, so the offer is known.
        self.conn.start(now(), Offer::of(&Config::default()));
        let reason = loop {
            if let Some(reason) = self.act_on_events() {
                break reason;
            }
            self.turn().await;
        };
        let Self {
            mut conn,
            mut calls,
            mut ops,
            ended,
            ..
        } = self;
        let farewell = say_farewell(self.reader, self.writer, self.outbound);
        let farewell = async {
            farewell.await;
            ended.send_replace(Some(reason));
        };
        let answering = async {
            while let Some(op) = ops.recv().await {
                calls.on_op(op, &mut conn, now());
            }
        };
        tokio::join!(farewell, answering);
    }

    /// Takes events from the state machine. Returns the reason if the tunnel has
    /// ended.
    fn act_on_events(&mut self) -> Option<EndReason> {
        while let Some(event) = self.conn.poll_event() {
            if let Event::Ended(reason) = &event {
                let reason = reason.clone();
                self.calls.on_event(event, &mut self.conn, now());
                return Some(reason);
            }
            self.calls.on_event(event, &mut self.conn, now());
        }
        None
    }

    /// Waits for the next input, and gives it to the state machine.
    async fn turn(&mut self) {
        // The next batch is taken when the last one was written. Until then the state
        // machine can still choose what to send first.
        let idle = self.outbound.is_empty() && self.mute.is_none();
        if idle && self.conn.wants_transmit() {
            let mut frames = FrameWriter::new(self.conn.side(), &mut self.outbound);
            self.conn.transmit(now(), WRITE_BUDGET, &mut frames);
        }
        let has_output = self.unflushed || !self.outbound.is_empty();
        let due = self.due();
        // All branches are cancel-safe: those that are dropped have done nothing.
        tokio::select! {
            read = self.reader.read(&mut self.inbound), if self.conn.wants_input() => {
                self.on_read(read);
            }
            written = write(&mut self.writer, &mut self.outbound, &mut self.unflushed),
                if has_output =>
            {
                if let Err(error) = written {
                    self.on_mute(error);
                }
            }
            op = self.ops.recv() => match op {
                Some(op) => self.calls.on_op(op, &mut self.conn, now()),
                // The tunnel and all its calls were dropped.
                None => self.conn.close(),
            },
            () = at(due) => self.on_time(),
        }
    }

    /// The next timeout.
    fn due(&self) -> Option<std::time::Instant> {
        let mute = self.mute.as_ref().map(|mute| mute.until);
        self.conn.poll_timeout().into_iter().chain(mute).min()
    }

    fn on_time(&mut self) {
        let now = now();
        if let Some(mute) = self.mute.take_if(|mute| mute.until <= now) {
            self.on_broken(&mute.error);
        }
        self.conn.handle_timeout(now);
    }

    fn on_read(&mut self, read: io::Result<usize>) {
        match read {
            Ok(0) => self.on_end(),
            Ok(n) => {
                // Copied, so that unread data does not keep the whole buffer alive.
                self.deframer
                    .push(Bytes::copy_from_slice(&self.inbound[..n]));
                self.handle_frames();
            }
            Err(error) => self.on_broken(&error),
        }
    }

    fn handle_frames(&mut self) {
        loop {
            match self.deframer.decode_next(self.conn.side().peer()) {
                Ok(Some(frame)) => {
                    // The last event has the error too, and is handled elsewhere.
                    if self.conn.handle_frame(now(), frame).is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    let error = ConnectionError::Undecodable(error.to_string());
                    return self.conn.handle_lost(error);
                }
            }
        }
    }

    /// The peer has closed its direction. gRPC has a status for that; here the end is
    /// clean unless it comes inside a frame.
    fn on_end(&mut self) {
        if self.deframer.is_mid_frame() {
            let error = TransportCause::EndedInsideFrame.into();
            self.conn.handle_lost(ConnectionError::TransportLost(error));
        } else {
            self.conn.handle_end();
        }
    }

    /// Writing has failed. What is still to be read decides how the tunnel ends.
    fn on_mute(&mut self, error: io::Error) {
        self.outbound.clear();
        self.unflushed = false;
        let until = now() + FAREWELL;
        self.mute = Some(Mute { error, until });
    }

    fn on_broken(&mut self, error: &io::Error) {
        let lost = TransportError::from(TransportCause::Io).with_detail(&error.to_string());
        self.conn.handle_lost(ConnectionError::TransportLost(lost));
    }
}

/// Writes some of `outbound`, or flushes when it is empty.
async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    outbound: &mut BytesMut,
    unflushed: &mut bool,
) -> io::Result<()> {
    if outbound.is_empty() {
        writer.flush().await?;
        *unflushed = false;
        return Ok(());
    }
    let written = writer.write(outbound).await?;
    if written == 0 {
        return Err(io::ErrorKind::WriteZero.into());
    }
    outbound.advance(written);
    *unflushed = true;
    Ok(())
}

/// Sends the last batch, closes this direction and waits for the peer to close the
/// other: closing a socket with unread input may discard data just sent.
async fn say_farewell<S: AsyncRead + AsyncWrite>(
    mut reader: ReadHalf<S>,
    mut writer: WriteHalf<S>,
    outbound: BytesMut,
) {
    let speak = async {
        writer.write_all(&outbound).await?;
        writer.shutdown().await
    };
    // The tunnel has ended, so errors do not matter.
    if matches!(timeout(FAREWELL, speak).await, Ok(Ok(()))) {
        let mut nowhere = tokio::io::sink();
        let listen = tokio::io::copy(&mut reader, &mut nowhere);
        let _ = timeout(FAREWELL, listen).await;
    }
}

/// Waits until `at`, or for ever without one.
async fn at(due: Option<std::time::Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// The time for the state machine.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}
