//! One end of a tunnel, as a user holds it.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tunnel_core::{Config, ConnectionError, EndReason, Metadata, Side, TransportCause};

use crate::call::{Call, CallError, IncomingCall, Op, OpenRequest, Ops, ask};
use crate::calls::Calls;
use crate::transport::Driver;

/// One end of a tunnel.
///
/// When it and all its calls were dropped, the tunnel is closed.
#[derive(Debug)]
pub struct Tunnel {
    ops: Ops,
    ended: watch::Receiver<Option<EndReason>>,
}

impl Tunnel {
    /// Begins a tunnel over a socket; a task of its own drives it from here on.
    ///
    /// One end has to be the [`Side::Caller`] and the other the
    /// [`Side::Handler`], whichever of them connected.
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

    /// Caller: begins a call. Waits until the tunnel is ready.
    ///
    /// A `grpc-timeout` among the metadata is the deadline of the call.
    ///
    /// # Errors
    ///
    /// [`CallError::Open`]: too many calls are in flight, or the tunnel is over.
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

    /// Drains the tunnel: no new calls, and those in flight have until
    /// `grace` has passed. A handler goes on accepting meanwhile: what came
    /// before is still to be served.
    pub async fn drain(&self, grace: Duration) -> EndReason {
        // Fails for a tunnel that is over, which is as good.
        let _ = self.ops.send(Op::Drain { grace });
        self.closed().await
    }

    /// Ends the tunnel at once; calls in flight fail.
    pub async fn close(&self) -> EndReason {
        let _ = self.ops.send(Op::CloseTunnel);
        self.closed().await
    }

    /// Waits until the tunnel has ended and its socket is closed, and says why.
    pub async fn closed(&self) -> EndReason {
        let mut ended = self.ended.clone();
        let reason = ended.wait_for(Option::is_some).await;
        reason
            .ok()
            .and_then(|reason| reason.clone())
            .unwrap_or_else(|| {
                // Only the runtime's own end could take the task away before.
                ConnectionError::TransportLost(TransportCause::TaskDropped.into()).into()
            })
    }
}
