//! The user's handle of one end of a tunnel.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tunnel_core::{Config, Connection, EndReason, Metadata, Side};

use crate::call::{Call, CallError, IncomingCall};
use crate::shared::{Arrived, Shared, User};
use crate::transport::{Driver, now};

/// One end of a tunnel.
///
/// The tunnel is closed when this and all its calls were dropped.
#[derive(Debug)]
pub struct Tunnel(Arc<User>);

impl Tunnel {
    /// Begins a tunnel over a byte stream; a task of its own drives it.
    ///
    /// One end has to be the [`Side::Caller`] and the other the [`Side::Handler`], whichever of them
    /// connected.
    pub fn over<S>(side: Side, socket: S, config: Config) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let shared = Shared::new(Connection::new(side, config));
        tokio::spawn(Driver::new(shared.clone(), socket).run());
        Self(Arc::new(User(shared)))
    }

    /// Caller: opens a call. Waits until the tunnel is ready.
    ///
    /// `grpc-timeout` in the metadata sets the call's deadline.
    ///
    /// # Errors
    ///
    /// [`CallError::Open`] if too many calls are in flight or the tunnel has ended.
    pub async fn open(&self, method: &str, mut metadata: Metadata) -> Result<Call, CallError> {
        let opening = self.shared().wait(|state, cx| {
            if !state.conn.is_ready() && state.conn.end_reason().is_none() {
                state.waiters.wait_tunnel(cx.waker());
                return Poll::Pending;
            }
            let metadata = std::mem::take(&mut metadata);
            Poll::Ready(state.conn.open(now(), method, metadata))
        });
        Ok(Call::new(opening.await?, &self.0))
    }

    /// Handler: waits for the next call; `None` when the tunnel has ended.
    pub async fn accept(&self) -> Option<IncomingCall> {
        let Arrived {
            id,
            method,
            metadata,
        } = self
            .shared()
            .wait(|state, cx| state.poll_accept(cx))
            .await?;
        Some(IncomingCall {
            method,
            metadata,
            call: Call::new(id, &self.0),
        })
    }

    /// Drains the tunnel: no new calls are made, and those in flight have until `timeout` has
    /// passed. A handler goes on accepting the calls that came before.
    pub async fn drain(&self, timeout: Duration) -> EndReason {
        let deadline = now().checked_add(timeout);
        self.shared()
            .operate(|state| state.conn.drain(now(), deadline));
        self.closed().await
    }

    /// Ends the tunnel at once; calls in flight fail.
    pub async fn close(&self) -> EndReason {
        self.shared().operate(|state| state.conn.close());
        self.closed().await
    }

    /// Waits until the tunnel has ended and its socket is closed, and returns why it ended.
    pub async fn closed(&self) -> EndReason {
        let waiting = self.shared().wait(|state, cx| match &state.closed {
            Some(reason) => Poll::Ready(reason.clone()),
            None => {
                state.waiters.wait_tunnel(cx.waker());
                Poll::Pending
            }
        });
        waiting.await
    }

    fn shared(&self) -> &Shared {
        &self.0.0
    }
}
