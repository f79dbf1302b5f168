//! The rest of a request body that was not there when its call was opened.
//!
//! A task of its own, because a request must go on while nobody polls the response. It ends
//! with the body, with the call, or with the tunnel.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body::Body as _;
use tonic::Status;
use tonic::body::Body;
use tunnel_core::{StreamId, WriteError};

use super::call::{fail_body, finish};
use crate::message::{SplitError, Splitter};
use crate::shared::{Shared, State};

/// How many pieces of a body are moved before other tasks get a turn.
const PIECES_PER_TURN: usize = 32;

/// Moves a request body into its stream.
pub(crate) struct RequestPump {
    shared: Arc<Shared>,
    id: StreamId,
    body: Body,
    splitter: Splitter,
    done: bool,
}

impl RequestPump {
    pub(crate) fn new(shared: Arc<Shared>, id: StreamId, body: Body, splitter: Splitter) -> Self {
        Self {
            shared,
            id,
            body,
            splitter,
            done: false,
        }
    }

    /// The body, or the stream it goes to, is of no use any more.
    fn give_up(&mut self, error: SplitError) {
        self.done = true;
        if let SplitError::Malformed(status) = error {
            self.fail(status);
        }
    }

    fn fail(&mut self, status: Status) {
        self.done = true;
        let id = self.id;
        let _before = self.shared.with(|state| fail_body(state, id, status));
    }
}

/// Whether a stream takes more of the body. Registers in any case: the death of the call must
/// wake a body that waits.
fn writable(state: &mut State, id: StreamId, cx: &Context<'_>) -> Result<bool, WriteError> {
    state.wait_write(id, cx.waker());
    state.conn.send(id).is_writable()
}

impl Future for RequestPump {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let id = this.id;
        let mut writable = this.shared.with(|state| writable(state, id, cx));
        for _ in 0..PIECES_PER_TURN {
            match writable {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(_) => {
                    this.done = true;
                    return Poll::Ready(());
                }
            }
            let splitter = &mut this.splitter;
            let result = match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => this.shared.with(|state| {
                        splitter.feed(data, &mut state.conn.send(id))?;
                        writable = self::writable(state, id, cx);
                        Ok(())
                    }),
                    Err(_) => Ok(()),
                },
                Poll::Ready(Some(Err(status))) => Err(SplitError::Malformed(status)),
                Poll::Ready(None) => {
                    this.done = true;
                    this.shared.with(|state| finish(state, id, splitter))
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
            // The body panicked, or the runtime shuts down.
            self.fail(Status::internal("the request stream was dropped"));
        }
        self.shared.release(self.id);
    }
}
