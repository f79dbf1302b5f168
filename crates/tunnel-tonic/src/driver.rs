//! The one task of a tunnel: it reads frames, and lets timers fire.
//!
//! It never waits for anything but the next frame and the next timer: not for a handler, not
//! for the writer. Whoever could make it wait could make both ends wait for each other.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body::Body as _;
use tokio::time::Sleep;
use tonic::body::Body;
use tunnel_core::frame::framing::{Deframer, FrameError};
use tunnel_core::{ConnectionError, Frame, Side};

use crate::error::root_message;
use crate::handler::Server;
use crate::outbound::NetworkRole;
use crate::shared::{Opened, Shared, now, outbound_dropped};

/// How many pieces of the body are read before other tasks get a turn.
const PIECES_PER_TURN: usize = 32;

/// How many frames are handled under one lock. A piece of a megabyte may hold a hundred
/// thousand.
const FRAMES_PER_LOCK: usize = 192;

/// How many calls may be open for further ones to be served inline. With 16 and 64 callers at once
/// that takes 0.8 to 0.9 of the CPU time of a task for each call; with 256 it takes 1.2 to 1.4,
/// because one task then does what the workers would share.
const INLINE_UP_TO: usize = 128;

/// How many calls are served inline, about, before other tasks get a turn: whoever they wake can
/// run only then.
const INLINE_PER_TURN: usize = 64;

/// How long the far end has to end its half of the outer call after this one has.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// Reads a tunnel until it ends.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    role: NetworkRole,
    peer: Side,
    inbound: Option<Body>,
    deframer: Deframer,
    frames: Vec<Frame>,
    /// Whether frames may be left in what was read.
    backlog: bool,
    /// Whether reading stands still until unread data was read.
    paused: bool,
    timer: Pin<Box<Sleep>>,
    timer_at: Option<Instant>,
    /// When to stop waiting for the far end's half.
    grace: Option<Instant>,
    /// Handler: who serves the calls.
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
        max_frame_size: usize,
        server: Option<Server>,
        guard: Box<dyn Any + Send>,
    ) -> Self {
        Self {
            shared,
            role,
            peer: side.peer(),
            inbound: Some(inbound),
            deframer: Deframer::new(max_frame_size),
            frames: Vec::new(),
            backlog: false,
            paused: false,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            timer_at: None,
            grace: None,
            server,
            guard: Some(guard),
        }
    }

    /// Handles frames that are there: those of one lock. Says how many calls were served inline.
    fn handle_some(&mut self) -> usize {
        let (more, failed) = self.decode();
        self.backlog = more;
        let (frames, now) = (&mut self.frames, now());
        let ((paused, open), opened) = self.shared.with_opened(|state| {
            // Also where no frame is whole yet.
            state.conn.handle_activity(now);
            for frame in frames.drain(..) {
                // The error is the tunnel's end, which its events tell.
                let _ = state.conn.handle_frame(now, frame);
            }
            if let Some(error) = failed {
                state.conn.handle_lost(undecodable(&error));
            }
            (!state.conn.wants_input(), state.conn.active_streams())
        });
        self.paused = paused;
        self.serve(opened, open)
    }

    /// Decodes some of the frames that are there; says whether there may be more, or why there
    /// are none.
    fn decode(&mut self) -> (bool, Option<FrameError>) {
        while self.frames.len() < FRAMES_PER_LOCK {
            match self.deframer.decode_next(self.peer) {
                Ok(Some(frame)) => self.frames.push(frame),
                Ok(None) => return (false, None),
                Err(error) => return (false, Some(error)),
            }
        }
        (true, None)
    }

    /// Serves calls, of which `open` are open in all; says how many of them in this very task.
    fn serve(&self, opened: Vec<Opened>, open: usize) -> usize {
        let Some(server) = &self.server else {
            debug_assert!(opened.is_empty(), "only a handler is told of calls");
            return 0;
        };
        let inline = server.is_inline() && open <= INLINE_UP_TO;
        // The first answer would have the writer run beside the handlers of the others, and send
        // each answer by itself.
        let _cork = (inline && opened.len() > 1).then(|| self.shared.cork());
        let calls = opened.len();
        for call in opened {
            server.serve(&self.shared, call, inline);
        }
        if inline { calls } else { 0 }
    }

    /// The body has ended without trailers: a server cannot know why, a client should.
    fn on_bare_end(&mut self) {
        self.on_end(match self.role {
            NetworkRole::Server => Ok(()),
            NetworkRole::Client => Err(without_status()),
        });
    }

    /// The body has ended, in order or not.
    fn on_end(&mut self, end: Result<(), ConnectionError>) {
        self.inbound = None;
        let mid_frame = self.deframer.is_mid_frame();
        self.shared.with(|state| match end {
            Ok(()) if mid_frame => state.conn.handle_lost(ConnectionError::TransportLost(
                "the stream ended inside a frame".into(),
            )),
            Ok(()) => state.conn.handle_end(),
            Err(error) => state.conn.handle_lost(error),
        });
    }

    /// Reads until there is nothing more now. `Ready` when the turn is used up.
    fn poll_inbound(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut turn = Turn::default();
        self.paused = false;
        while !turn.is_over() {
            if self.backlog {
                turn.inline += self.handle_some();
                continue;
            }
            let Some(inbound) = &mut self.inbound else {
                return Poll::Pending;
            };
            if self.paused {
                break;
            }
            turn.pieces += 1;
            match Pin::new(inbound).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => self.on_bare_end(),
                Poll::Ready(Some(Err(status))) => {
                    self.on_end(Err(ConnectionError::TransportLost(describe(&status))));
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.deframer.push(data);
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

    /// Arms the timer. `true` if it has fired.
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

/// What one turn of the driver has done.
#[derive(Default)]
struct Turn {
    pieces: usize,
    inline: usize,
}

impl Turn {
    fn is_over(&self) -> bool {
        self.pieces >= PIECES_PER_TURN || self.inline >= INLINE_PER_TURN
    }
}

fn undecodable(error: &FrameError) -> ConnectionError {
    ConnectionError::Undecodable(error.to_string())
}

/// A client's tunnel ends in order only with an OK status.
fn end_by_trailers(trailers: &http::HeaderMap) -> Result<(), ConnectionError> {
    match crate::status::from_headers(trailers) {
        Some(status) if status.code == tunnel_core::Code::Ok => Ok(()),
        Some(status) => Err(ConnectionError::EndedByPeer(status)),
        None => Err(without_status()),
    }
}

fn without_status() -> ConnectionError {
    ConnectionError::TransportLost("the far end ended the tunnel without a status".into())
}

fn describe(status: &tonic::Status) -> String {
    match status.code() {
        // Says nothing: what a broken connection has.
        tonic::Code::Unknown => root_message(status),
        code => format!("{code:?}: {}", root_message(status)),
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            let grace = this.grace;
            let ((ended, lost, paused, due, open), opened) = this.shared.with_opened(|state| {
                let ended = state.conn.end_reason().is_some();
                let lost = state.outbound_is_lost();
                let paused = !state.conn.wants_input() && !lost;
                let due = state.poll_timeout();
                // After the end nothing that happens to the state is of interest, and its end
                // would wake the driver for ever.
                if !ended {
                    state.wait_driver(cx.waker(), due, paused);
                }
                let open = state.conn.active_streams();
                (ended, lost, paused, grace.or(due), open)
            });
            // Those that had to wait for the handlers of others to be gone.
            this.serve(opened, open);
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
                // After what has come was read: a peer is silent only then.
                this.shared.with(|state| state.handle_timeout(now()));
            }
            match read {
                // What that has changed is to be seen.
                Poll::Pending if fired => {}
                Poll::Pending if paused => return Poll::Pending,
                Poll::Pending if this.inbound.is_none() => {}
                // What has come says nothing of an end.
                Poll::Pending if lost && !ended => {
                    this.shared
                        .with(|state| state.conn.handle_lost(outbound_dropped()));
                }
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => {
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
        self.shared.with(|state| {
            state.conn.handle_lost(ConnectionError::TransportLost(
                "the tunnel's task was dropped".into(),
            ));
        });
        // The body may be a user's own; whatever its drop does, the tunnel has gone.
        let _gone = SetGone(&self.shared);
        self.guard = None;
        self.inbound = None;
    }
}

struct SetGone<'a>(&'a Shared);

impl Drop for SetGone<'_> {
    fn drop(&mut self) {
        self.0.set_gone();
    }
}
