//! The user's handle of one end of a tunnel.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tunnel_core::{Config, ConnectionError, EndReason, Metadata, Side, TransportCause};

use crate::call::{Call, CallError, IncomingCall, Op, OpenRequest, Ops, ask};
use crate::calls::Calls;
use crate::transport::Driver;

/// One end of a tunnel.
///
/// The tunnel is closed when this and all its calls are dropped.
#[derive(Debug)]
pub struct Tunnel {
    ops: Ops,
    ended: watch::Receiver<Option<EndReason>>,
}

impl Tunnel {
    /// Starts a tunnel over a socket, with a task that drives it.
    ///
    /// One end must be the [`Side::Caller`] and the other the [`Side::Handler`]. Either
    /// may be the one that connected.
    pub fn over<S>(side: Side, socket: S, config: Config) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (ops, inbox) = mpsc::unbounded_channel();
        let (end, ended) = watch::channel(None);
        let calls = Calls::new(ops.downgrade());
        tokio::spawn(Driver::new(side, config, socket, calls, inbox, end).run());
        Self { ops, ended }
    }

    /// Caller: opens a call. Waits until the tunnel is ready.
    ///
    /// `grpc-timeout` in the metadata sets the call's deadline.
    ///
    /// # Errors
    ///
    /// [`CallError::Open`] if too many calls are in flight or the tunnel has ended.
    pub async fn open(&self, method: &str, metadata: Metadata) -> Result<Call, CallError> {
        let method = method.to_owned();
        let op = |reply| {
            Op::Open(OpenRequest {
                method,
                metadata,
                reply,
            })
        };
        ask(&self.ops, op).await
    }

    /// Handler: waits for the next call; `None` when the tunnel has ended.
    pub async fn accept(&self) -> Option<IncomingCall> {
        let (acceptor, call) = oneshot::channel();
        self.ops.send(Op::Accept(acceptor)).ok()?;
        call.await.ok()
    }

    /// Drains the tunnel: it takes no new calls, and calls in flight may go on for
    /// `grace`. A handler must still accept the calls that came before.
    pub async fn drain(&self, grace: Duration) -> EndReason {
        // Fails if the tunnel has ended, which is fine.
        let _ = self.ops.send(Op::Drain { grace });
        self.closed().await
    }

    /// Ends the tunnel at once; calls in flight fail.
    pub async fn close(&self) -> EndReason {
        let _ = self.ops.send(Op::CloseTunnel);
        self.closed().await
    }

    /// Waits until the tunnel has ended and its socket is closed; returns the reason.
    pub async fn closed(&self) -> EndReason {
        let mut ended = self.ended.clone();
        let reason = ended.wait_for(Option::is_some).await;
        reason
            .ok()
            .and_then(|reason| reason.clone())
            .unwrap_or_else(|| {
                // Only a shutdown of the runtime drops the task before.
                ConnectionError::TransportLost(TransportCause::TaskDropped.into()).into()
            })
    }
}
