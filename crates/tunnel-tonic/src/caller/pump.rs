//! Sends the rest of a request body that was not available when its call was opened.
//!
//! The pump is a task, because a request must continue while the response is not polled. It ends
//! with the body, the call or the tunnel.
//!
//! A body that is pending gets its task only when it is woken. Until then its wakers hold it, which needs
//! 80 bytes instead of the 256 of a task. A call that only opens never needs a task.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use http_body::Body as _;
use tonic::Status;
use tonic::body::Body;
use tunnel_core::{StreamId, WriteError};

use super::guard::{fail_body, finish};
use crate::message::{BodyError, BodyWriter};
use crate::shared::Shared;
use crate::state::State;

/// How many pieces of a body are sent before the task yields.
const PIECES_PER_TURN: usize = 32;

/// About how many bytes of a body are sent before the task yields.
const BYTES_PER_TURN: usize = 1 << 20;

/// Moves a request body into its stream.
pub(crate) struct RequestPump {
    shared: Arc<Shared>,
    id: StreamId,
    body: Body,
    writer: BodyWriter,
    done: bool,
}

impl RequestPump {
    pub(crate) fn new(shared: Arc<Shared>, id: StreamId, body: Body, writer: BodyWriter) -> Self {
        Self {
            shared,
            id,
            body,
            writer,
            done: false,
        }
    }

    /// Continues in a task of the tunnel's runtime. The current thread may have no runtime.
    pub(crate) fn spawn(self) {
        // Without a runtime no tunnel was started, and so no call was opened.
        if let Some(runtime) = self.shared.runtime().cloned() {
            runtime.spawn(self);
        }
    }

    /// Continues in a task when the body or the stream wakes it.
    pub(crate) fn park(mut self) {
        let parked = Arc::new(Parked {
            place: Mutex::new(Place::Polling { woken: false }),
        });
        let waker = Waker::from(parked.clone());
        // A panic of the body ends its call, as in a task.
        let _ = catch_unwind(AssertUnwindSafe(move || {
            let mut cx = Context::from_waker(&waker);
            if Pin::new(&mut self).poll(&mut cx).is_pending() {
                parked.keep(self);
            }
        }));
    }

    /// Stops, because the body is malformed or the stream has ended.
    fn give_up(&mut self, error: BodyError) {
        self.done = true;
        if let BodyError::Malformed(status) = error {
            self.fail(status);
        }
    }

    fn fail(&mut self, status: Status) {
        self.done = true;
        let id = self.id;
        let _before = self.shared.with(|state| fail_body(state, id, status));
    }
}

/// A pump that waits without a task, and wakes itself into one.
///
/// Only a wake ends the wait. The state machine wakes the stream's writer when the call or the tunnel
/// ends.
struct Parked {
    place: Mutex<Place>,
}

enum Place {
    /// The body is being polled for the first time.
    Polling {
        woken: bool,
    },
    Waits(RequestPump),
    /// The pump has its task.
    Left,
}

impl Parked {
    fn place(&self) -> MutexGuard<'_, Place> {
        // Nothing that can panic runs under this lock.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a pending pump, unless it was woken while it was polled.
    fn keep(&self, pump: RequestPump) {
        let mut place = self.place();
        match &*place {
            Place::Polling { woken: false } => *place = Place::Waits(pump),
            _ => {
                *place = Place::Left;
                drop(place);
                pump.spawn();
            }
        }
    }
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut place = self.place();
        if let Place::Polling { woken } = &mut *place {
            *woken = true;
            return;
        }
        let before = std::mem::replace(&mut *place, Place::Left);
        drop(place);
        if let Place::Waits(pump) = before {
            pump.spawn();
        }
    }
}

/// Whether a stream takes more of the body. Registers in any case, because the end of the call must wake
/// a pump that waits.
fn writable(state: &mut State, id: StreamId, cx: &Context<'_>) -> Result<bool, WriteError> {
    state.wait_write(id, cx.waker());
    state.conn.send_stream(id).is_writable()
}

impl Future for RequestPump {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let id = this.id;
        let mut writable = this.shared.with(|state| writable(state, id, cx));
        let mut bytes = 0;
        for _ in 0..PIECES_PER_TURN {
            if bytes >= BYTES_PER_TURN {
                break;
            }
            match writable {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(_) => {
                    this.done = true;
                    return Poll::Ready(());
                }
            }
            let writer = &mut this.writer;
            let result = match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() => Ok(()),
                    Ok(data) => this.shared.with(|state| {
                        bytes += data.len();
                        writer.write(data, &mut state.conn.send_stream(id))?;
                        writable = self::writable(state, id, cx);
                        Ok(())
                    }),
                    Err(_) => Ok(()),
                },
                Poll::Ready(Some(Err(status))) => Err(BodyError::Malformed(status)),
                Poll::Ready(None) => {
                    this.done = true;
                    this.shared.with(|state| finish(state, id, writer))
                }
            };
            if let Err(error) = result {
                this.give_up(error);
            }
            if this.done {
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for RequestPump {
    fn drop(&mut self) {
        if !self.done {
            self.fail(match std::thread::panicking() {
                true => Status::internal("the request body panicked"),
                // The same failure as for every call whose tunnel is dropped with its runtime.
                false => Status::unavailable("the request's task was dropped with its runtime"),
            });
        }
        self.shared.release(self.id);
    }
}
