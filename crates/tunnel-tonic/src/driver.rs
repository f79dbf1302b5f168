//! The driver: the reader of a tunnel, which handles frames and fires timers.
//!
//! Invariant: it waits only for the next frame and the next timer, never for a handler or for the
//! writer. Otherwise both ends could wait for each other.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Body as _;
use tokio::time::Sleep;
use tonic::body::Body;
use tunnel_core::frame::framing::FrameError;
use tunnel_core::{ConnectionError, Frame, FrameKind, Side, TransportCause};

use crate::compression::frames::FrameReader;
use crate::handler::{ServeCall, Server, poll_once};
use crate::info::NetworkRole;
use crate::shared::{Shared, now};
use crate::state::{Opened, outbound_dropped};
use crate::transport::transport_error;

/// The most frames handled in one turn, before the driver yields.
const FRAMES_PER_TURN: usize = 1024;

/// The most bytes read in one turn.
const BYTES_PER_TURN: usize = 1 << 20;

/// The cost of a piece of the body in addition to its bytes.
const PIECE_OVERHEAD: usize = 1 << 10;

/// The longest turn, by the system's clock, for frames that take longer than others.
const TIME_PER_TURN: Duration = Duration::from_micros(200);

/// The most frames handled under one lock, and between two looks at the clock.
const FRAMES_PER_LOCK: usize = 192;

/// About how many bytes of frames are handled under one lock.
const BYTES_PER_LOCK: usize = 256 << 10;

/// How many bytes of messages a byte of metadata counts for.
const METADATA_COST: usize = 32;

/// The most open calls with which new calls are served inline. Beyond that, tasks that share the
/// workers are faster (`docs/PERFORMANCE.md`).
const INLINE_UP_TO: usize = 128;

/// About how many calls are served inline in one turn. The tasks that they wake run after it.
const INLINE_PER_TURN: usize = 64;

/// How long the peer may take to end its half of the outer call after this end has.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// How often the metrics of traffic are published at most.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);

/// Reads a tunnel until it ends.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    role: NetworkRole,
    peer: Side,
    inbound: Option<Body>,
    reader: FrameReader,
    frames: Vec<Frame>,
    turn: Turn,
    /// A call that was the only thing read in this turn.
    alone: Option<ServeCall>,
    /// The last piece that was read, kept while frames may be left in it. The state machine
    /// therefore never drops the last reference to it under the lock.
    piece: Bytes,
    /// Whether the deframer may have more frames.
    backlog: bool,
    /// Whether reading is paused.
    paused: bool,
    timer: Pin<Box<Sleep>>,
    timer_at: Option<Instant>,
    /// When to stop waiting for the peer's half.
    grace: Option<Instant>,
    /// When to publish the metrics of traffic again.
    publish_at: Option<Instant>,
    /// Handler: serves the calls.
    server: Option<Server>,
    /// Dropped when the tunnel has gone.
    guard: Option<Box<dyn Any + Send>>,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        role: NetworkRole,
        side: Side,
        inbound: Body,
        reader: FrameReader,
        server: Option<Server>,
        guard: Box<dyn Any + Send>,
    ) -> Self {
        Self {
            shared,
            role,
            peer: side.peer(),
            inbound: Some(inbound),
            reader,
            frames: Vec::new(),
            turn: Turn::default(),
            alone: None,
            piece: Bytes::new(),
            backlog: false,
            paused: false,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            timer_at: None,
            grace: None,
            publish_at: None,
            server,
            guard: Some(guard),
        }
    }

    /// Whether this is a handler whose calls are served by tasks.
    pub(crate) fn serves(&self) -> bool {
        self.server
            .as_ref()
            .is_some_and(|server| !server.is_inline())
    }

    /// Handles buffered frames, as many as one lock allows.
    fn handle_some(&mut self) {
        let (more, failed) = self.decode();
        self.backlog = more;
        self.turn.frames += self.frames.len();
        let (frames, now) = (&mut self.frames, now());
        let read = self.shared.with_read(|state| {
            // Also if no frame is complete yet.
            state.conn.handle_activity(now);
            for frame in frames.drain(..) {
                // The error ends the tunnel, and an event reports it.
                let _ = state.conn.handle_frame(now, frame);
            }
            if let Some(error) = failed {
                state.conn.handle_lost(error.into());
            }
            (!state.conn.wants_input(), state.conn.active_streams())
        });
        self.publish(now);
        let (paused, open) = read.result;
        if !more {
            self.piece = Bytes::new();
        }
        self.paused = paused;
        self.serve(read.opened, open, read.woke);
    }

    /// Publishes the metrics of traffic, unless that was done shortly before.
    fn publish(&mut self, now: Instant) {
        if self.publish_at.is_none_or(|at| at <= now) {
            self.publish_at = now.checked_add(PUBLISH_INTERVAL);
            self.shared.publish_traffic();
        }
    }

    /// Takes the call that was the only thing read in the last poll.
    pub(crate) fn take_alone(&mut self) -> Option<ServeCall> {
        self.alone.take()
    }

    /// Gives that call a task, because more was read after it.
    fn spawn_alone(&mut self) {
        if let Some(call) = self.alone.take() {
            tokio::spawn(call);
        }
    }

    /// Decodes some of the buffered frames. Returns whether there may be more, or an error.
    fn decode(&mut self) -> (bool, Option<FrameError>) {
        let mut cost = 0;
        while self.frames.len() < FRAMES_PER_LOCK && cost < BYTES_PER_LOCK {
            let before = self.reader.deframer.buffered();
            match self.reader.deframer.decode_next(self.peer) {
                Ok(Some(frame)) => {
                    let bytes = before.saturating_sub(self.reader.deframer.buffered());
                    let bytes = bytes.max(self.reader.take_inflated());
                    cost += bytes * cost_of_byte(&frame.kind);
                    self.frames.push(frame);
                }
                Ok(None) => return (false, None),
                Err(error) => return (false, Some(error)),
            }
        }
        (true, None)
    }

    /// Serves the new calls of one lock. `open` is the number of all open calls, `woke` whether other
    /// tasks were woken.
    fn serve(&mut self, opened: Vec<Opened>, open: usize, woke: bool) {
        if woke {
            self.turn.woke = true;
            self.spawn_alone();
        }
        if opened.is_empty() {
            return;
        }
        self.spawn_alone();
        let Some(server) = &self.server else {
            debug_assert!(false, "only a handler is told of calls");
            return;
        };
        let inline = server.is_inline() && open <= INLINE_UP_TO;
        // Without a cork the first response would wake the writer, which would then send each response
        // by itself.
        let _cork = (inline && opened.len() > 1).then(|| self.shared.cork());
        if inline {
            self.turn.inline += opened.len();
        }
        let alone = !server.is_inline() && !self.turn.woke && opened.len() == 1;
        self.turn.woke = true;
        let calls = opened.into_iter();
        for call in calls.filter_map(|call| server.begin(&self.shared, call)) {
            if inline {
                poll_once(call);
            } else if alone {
                self.alone = Some(call);
            } else {
                tokio::spawn(call);
            }
        }
    }

    /// The body has ended without trailers: normal at a server, an error at a client.
    fn on_bare_end(&mut self) {
        self.on_end(match self.role {
            NetworkRole::Server => Ok(()),
            NetworkRole::Client => Err(without_status()),
        });
    }

    /// The body has ended, cleanly or with an error.
    fn on_end(&mut self, end: Result<(), ConnectionError>) {
        self.inbound = None;
        let mid_frame = self.reader.deframer.is_mid_frame();
        self.shared.with(|state| match end {
            Ok(()) if mid_frame => state.conn.handle_lost(ConnectionError::TransportLost(
                TransportCause::EndedInsideFrame.into(),
            )),
            Ok(()) => state.conn.handle_end(),
            Err(error) => state.conn.handle_lost(error),
        });
    }

    /// Reads until nothing is left. `Ready` when the turn is over or reading is paused.
    fn poll_inbound(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.paused = false;
        while !self.turn.is_over() {
            if self.backlog {
                self.handle_some();
                continue;
            }
            let Some(inbound) = &mut self.inbound else {
                return Poll::Pending;
            };
            if self.paused {
                break;
            }
            match Pin::new(inbound).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => self.on_bare_end(),
                Poll::Ready(Some(Err(status))) => {
                    let sent = self.shared.outer_bytes_sent();
                    let error = transport_error(&status, sent);
                    self.on_end(Err(ConnectionError::TransportLost(error)));
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.turn.bytes += PIECE_OVERHEAD + data.len();
                        self.piece = data.clone();
                        self.reader.deframer.push(data);
                        self.backlog = true;
                    }
                    Err(other) => {
                        if let Ok(trailers) = other.into_trailers() {
                            self.on_end(end_by_trailers(&trailers));
                        }
                    }
                },
            }
        }
        Poll::Ready(())
    }

    /// Sets the timer. Returns whether it has fired.
    fn poll_timer(&mut self, due: Option<Instant>, cx: &mut Context<'_>) -> bool {
        let Some(due) = due else {
            self.timer_at = None;
            return false;
        };
        if self.timer_at != Some(due) {
            self.timer_at = Some(due);
            self.timer.as_mut().reset(due.into());
        }
        let fired = self.timer.as_mut().poll(cx).is_ready();
        if fired {
            self.timer_at = None;
        }
        fired
    }
}

/// The work of the driver in one turn.
#[derive(Default)]
struct Turn {
    frames: usize,
    bytes: usize,
    /// How many calls were served inline.
    inline: usize,
    /// Whether another task was woken.
    woke: bool,
    /// When the first frames were handled.
    since: Option<Instant>,
}

impl Turn {
    fn is_over(&mut self) -> bool {
        self.frames >= FRAMES_PER_TURN
            || self.bytes >= BYTES_PER_TURN
            || self.inline >= INLINE_PER_TURN
            || self.is_long()
    }

    fn is_long(&mut self) -> bool {
        self.frames > 0 && self.since.get_or_insert_with(Instant::now).elapsed() >= TIME_PER_TURN
    }
}

/// How much a byte of a frame counts towards [`BYTES_PER_LOCK`]: a byte of metadata costs much more
/// to decode than one of a message.
fn cost_of_byte(kind: &FrameKind) -> usize {
    match kind {
        FrameKind::Message { .. } | FrameKind::MoreData(_) => 1,
        _ => METADATA_COST,
    }
}

/// A client's tunnel ends cleanly only with an OK status.
fn end_by_trailers(trailers: &http::HeaderMap) -> Result<(), ConnectionError> {
    match crate::status::from_headers(trailers) {
        Some(status) if status.code == tunnel_core::Code::Ok => Ok(()),
        Some(status) => Err(ConnectionError::EndedByPeer(status)),
        None => Err(without_status()),
    }
}

fn without_status() -> ConnectionError {
    ConnectionError::TransportLost(TransportCause::EndedWithoutStatus.into())
}

impl Driver {
    /// Handles received data and due timers. `Ready` when the tunnel is closed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let this = self;
        this.turn = Turn::default();
        loop {
            let grace = this.grace;
            let read = this.shared.with_read(|state| {
                let ended = state.conn.end_reason().is_some();
                let lost = state.outbound_is_lost();
                let paused = !state.conn.wants_input() && !lost;
                let due = state.poll_timeout();
                // After the end the driver needs no more wake-ups, and the ended state would wake it
                // for ever.
                if !ended {
                    state.wait_driver(cx.waker(), due, paused);
                }
                let open = state.conn.active_streams();
                (ended, lost, paused, grace.or(due), open)
            });
            // Calls that had to wait until other handlers had stopped.
            let (ended, lost, paused, due, open) = read.result;
            this.serve(read.opened, open, read.woke);
            if ended {
                if this.inbound.is_none() || this.role == NetworkRole::Server {
                    return Poll::Ready(());
                }
                if this.grace.is_none() {
                    this.grace = now().checked_add(CLOSE_GRACE);
                    continue;
                }
            }
            let fired = this.poll_timer(due, cx);
            if fired && ended {
                return Poll::Ready(());
            }
            let read = match paused {
                true => Poll::Pending,
                false => this.poll_inbound(cx),
            };
            if fired {
                // After reading: only then is a peer known to be silent.
                this.turn.woke = true;
                this.spawn_alone();
                let now = now();
                this.shared.with(|state| state.handle_timeout(now));
                this.publish(now);
            }
            match read {
                // Check for changes that the timers made.
                Poll::Pending if fired => {}
                Poll::Pending if paused => return Poll::Pending,
                Poll::Pending if this.inbound.is_none() => {}
                // The received data does not explain the loss.
                Poll::Pending if lost && !ended => {
                    this.shared
                        .with(|state| state.conn.handle_lost(outbound_dropped()));
                }
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => {
                    this.spawn_alone();
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Also when the runtime shuts down under the tunnel.
        self.shared.lose_driver();
        // Dropping the body may run user code, even panic: the tunnel is closed in any case.
        let _closed = SetClosed(&self.shared);
        self.guard = None;
        self.inbound = None;
    }
}

struct SetClosed<'a>(&'a Shared);

impl Drop for SetClosed<'_> {
    fn drop(&mut self) {
        self.0.set_closed();
    }
}
