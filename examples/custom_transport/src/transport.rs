//! The task of one end: moves bytes between a socket and the state machine.
//!
//! The state machine does nothing by itself. It is given what arrives and what time it is; then it
//! is asked what to send, and when to come back. One turn of [`Driver::drive`] is one round of that.
//!
//! Reading and writing go on side by side. A driver that stopped reading until all is written could
//! wait for ever: so might its peer, each with a full socket that only the other can empty.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{sleep_until, timeout};
use tunnel_core::frame::framing::{Deframer, FrameWriter};
use tunnel_core::{Connection, ConnectionError, Offer, TransportCause, TransportError};

use crate::shared::Shared;

/// How much is read from the socket at a time, in bytes.
const READ_SIZE: usize = 64 << 10;

/// How much is taken from the state machine at a time, in bytes: enough to share the cost of a
/// write among many frames, little enough that an urgent frame does not wait long behind it.
const WRITE_BUDGET: usize = 64 << 10;

/// How long a tunnel that has ended may take to send what is left, and how long it then waits for
/// the peer to close.
const FAREWELL: Duration = Duration::from_secs(5);

/// One end of a tunnel, with its socket.
pub(crate) struct Driver<S> {
    shared: Arc<Shared>,
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

/// Why nothing can be written, and until when the peer is still read: it may have said all there was
/// to say before it closed.
struct Mute {
    error: io::Error,
    until: Instant,
}

/// What the driver waits for.
struct Turn {
    /// Whether to read.
    read: bool,
    /// The next timeout.
    due: Option<Instant>,
}

impl<S: AsyncRead + AsyncWrite> Driver<S> {
    pub(crate) fn new(shared: Arc<Shared>, socket: S) -> Self {
        let (reader, writer) = tokio::io::split(socket);
        let max_frame_size = shared.with(|state| state.conn.config().max_frame_size());
        Self {
            shared,
            deframer: Deframer::new(max_frame_size),
            reader,
            writer,
            inbound: vec![0; READ_SIZE].into(),
            outbound: BytesMut::new(),
            unflushed: false,
            mute: None,
        }
    }

    /// Drives the tunnel to its end. What has arrived can still be read afterwards.
    pub(crate) async fn run(mut self) {
        // If the runtime goes first, this ends the tunnel.
        let _closing = Closing(self.shared.clone());
        // There is no outer call here whose headers could say what the peer speaks. Both ends are
        // this library, so that is known.
        self.shared
            .with(|state| state.conn.start(now(), Offer::of(state.conn.config())));
        while let Some(turn) = self.next_turn() {
            self.drive(turn).await;
        }
        self.say_farewell().await;
    }

    /// Fills the buffer for the socket and says what to wait for; `None` when the tunnel has ended.
    fn next_turn(&mut self) -> Option<Turn> {
        // Filled only when the last batch is on its way: until then the state machine is free to
        // choose what goes first.
        let idle = self.outbound.is_empty() && self.mute.is_none();
        let outbound = &mut self.outbound;
        let mut turn = self.shared.with(|state| {
            let conn = &mut state.conn;
            if idle && conn.wants_transmit() {
                let mut frames = FrameWriter::new(conn.side(), outbound);
                conn.transmit(now(), WRITE_BUDGET, &mut frames);
            }
            if state.unused {
                conn.close();
            }
            conn.end_reason().is_none().then(|| Turn {
                read: conn.wants_input(),
                due: conn.poll_timeout(),
            })
        })?;
        let mute = self.mute.as_ref().map(|mute| mute.until);
        turn.due = turn.due.into_iter().chain(mute).min();
        Some(turn)
    }

    /// Waits for the next input, and gives it to the state machine.
    async fn drive(&mut self, turn: Turn) {
        let has_output = self.unflushed || !self.outbound.is_empty();
        // Whichever branch wins, the others have done nothing yet: each of them can be dropped
        // without losing anything.
        tokio::select! {
            read = self.reader.read(&mut self.inbound), if turn.read => self.on_read(read),
            written = write(&mut self.writer, &mut self.outbound, &mut self.unflushed),
                if has_output =>
            {
                if let Err(error) = written {
                    self.on_mute(error);
                }
            }
            () = self.shared.changed() => {}
            () = at(turn.due) => self.on_time(),
        }
    }

    fn on_time(&mut self) {
        let now = now();
        if let Some(mute) = self.mute.take_if(|mute| mute.until <= now) {
            self.on_broken(&mute.error);
        }
        self.shared.with(|state| state.conn.handle_timeout(now));
    }

    fn on_read(&mut self, read: io::Result<usize>) {
        match read {
            Ok(0) => self.on_end(),
            Ok(n) => {
                // Copied, so that what lies unread keeps its own bytes alive and not the whole
                // buffer.
                let bytes = Bytes::copy_from_slice(&self.inbound[..n]);
                self.deframer.push(bytes);
                let deframer = &mut self.deframer;
                self.shared
                    .with(|state| handle_frames(deframer, &mut state.conn));
            }
            Err(error) => self.on_broken(&error),
        }
    }

    /// The peer has closed its direction. In gRPC a status would say whether it ended cleanly; here
    /// it did, unless it breaks off inside a frame.
    fn on_end(&mut self) {
        let mid_frame = self.deframer.is_mid_frame();
        self.shared.with(|state| {
            if mid_frame {
                let error = TransportCause::EndedInsideFrame.into();
                state
                    .conn
                    .handle_lost(ConnectionError::TransportLost(error));
            } else {
                state.conn.handle_end();
            }
        });
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
        let lost = ConnectionError::TransportLost(lost);
        self.shared.with(|state| state.conn.handle_lost(lost));
    }

    /// Sends what was already taken from the state machine, closes our direction and waits for the
    /// peer to close its own: a socket that is closed with input unread may take back what was just
    /// sent.
    async fn say_farewell(&mut self) {
        let speak = async {
            self.writer.write_all(&self.outbound).await?;
            self.writer.shutdown().await
        };
        // The tunnel has ended already, so errors change nothing.
        if matches!(timeout(FAREWELL, speak).await, Ok(Ok(()))) {
            let mut nowhere = tokio::io::sink();
            let listen = tokio::io::copy(&mut self.reader, &mut nowhere);
            let _ = timeout(FAREWELL, listen).await;
        }
    }
}

/// Says that the socket is closed when it is dropped.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.with(|state| {
            let dropped = TransportCause::TaskDropped.into();
            // Nothing happens to a tunnel that has ended.
            state
                .conn
                .handle_lost(ConnectionError::TransportLost(dropped));
            state.closed = state.conn.end_reason().cloned();
            state.waiters.wake_tunnel();
        });
    }
}

fn handle_frames(deframer: &mut Deframer, conn: &mut Connection) {
    loop {
        match deframer.decode_next(conn.side().peer()) {
            Ok(Some(frame)) => {
                // The tunnel has ended then, which the next turn sees.
                if conn.handle_frame(now(), frame).is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => return conn.handle_lost(error.into()),
        }
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

/// Waits until `due`, or for ever without one.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// The time for the state machine.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
