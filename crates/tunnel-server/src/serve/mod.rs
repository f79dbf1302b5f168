//! Serving until a signal, and stopping within a timeout even if clients do not cooperate.

mod connection;

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::{Connected, Router};
use tower_layer::Layer;
use tower_service::Service;

use crate::TunnelServiceHandler;
use connection::{Closable, Closing};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long before the deadline calls in flight are ended, so that their status can still be sent.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long tonic may take to notice that its connections are closed.
const CLOSING: Duration = Duration::from_secs(1);

/// When and how a server stops; for [`TunnelServiceHandler::serve`].
///
/// The steps:
///
/// 1. The signal. From now on new tunnels are refused with UNAVAILABLE, marked as not processed and
///    with a `grpc-retry-pushback-ms` of 50 to 150, so that devices open them elsewhere at once.
/// 2. With [`not_ready`](Self::not_ready): the hook runs, for example to report NOT_SERVING to health
///    checks. During its notice the server goes on as before, apart from new tunnels, so that load
///    balancers can notice. With [siblings](TunnelServiceHandler::set_siblings) the devices of reverse tunnels are
///    [asked](TunnelServiceHandler::retire) to open tunnels there meanwhile.
///    A handler that was [drained](TunnelServiceHandler::drain) before the signal does not wait for the end of the notice.
/// 3. The listener closes, and with it all connections that have sent nothing yet. Clients are told to
///    use other connections (HTTP/2 GOAWAY), and all tunnels are
///    [drained](TunnelServiceHandler::drain). Calls in flight go on. The [`timeout`](Self::timeout)
///    starts.
/// 4. One second before the timeout is over (half of it, if it is shorter than two seconds), calls in
///    flight in tunnels are ended with UNAVAILABLE.
/// 5. When the timeout is over all connections are closed, those of frozen clients and of ordinary
///    calls too.
///
/// The server stops earlier if all connections have ended earlier. A stream that never ends, as that of
/// `Health.Watch`, holds its connection until the timeout. A connection that has nothing left to
/// send is read until its client closes it, for at most a second: closed at once, it could be reset, and its
/// last answers lost.
///
/// ```
/// use std::time::Duration;
/// use tunnel_server::Shutdown;
///
/// let shutdown = Shutdown::on(async { /* tokio::signal::ctrl_c().await */ })
///     .timeout(Duration::from_secs(20));
/// # let _ = shutdown;
/// ```
#[must_use = "a shutdown does nothing unless it is given to TunnelServiceHandler::serve"]
pub struct Shutdown {
    signal: BoxFuture<'static, ()>,
    not_ready: Option<(BoxFuture<'static, ()>, Duration)>,
    timeout: Duration,
}

impl Shutdown {
    /// Stops when `signal` resolves.
    pub fn on(signal: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            signal: signal.boxed(),
            not_ready: None,
            timeout: Duration::from_secs(10),
        }
    }

    /// The time limit of the drain, after any [notice](Self::not_ready). When it has passed, all
    /// connections are closed. Default: 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets a hook to run after the signal, and how long the server then goes on as before while load
    /// balancers notice. The notice should be a little longer than the interval of their health checks.
    /// It includes the time of the hook, which is dropped when the notice is over. Default: no hook
    /// and no notice.
    ///
    /// With `tonic-health`:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tunnel_server::{Shutdown, TunnelServiceServer};
    /// # fn example(signal: impl Future<Output = ()> + Send + 'static) {
    /// let (reporter, health) = tonic_health::server::health_reporter();
    /// // router.add_service(health)
    /// let shutdown = Shutdown::on(signal).not_ready(Duration::from_secs(5), async move {
    ///     reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    ///     reporter.set_not_serving::<TunnelServiceServer>().await;
    /// });
    /// # let _ = (shutdown, health);
    /// # }
    /// ```
    pub fn not_ready(
        mut self,
        notice: Duration,
        hook: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        self.not_ready = Some((hook.boxed(), notice));
        self
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown")
            .field("timeout", &self.timeout)
            .field("notice", &self.not_ready.as_ref().map(|(_, notice)| notice))
            .finish_non_exhaustive()
    }
}

/// The instant after a time from now; `None` if it is beyond the clock's range.
fn after(time: Duration) -> Option<Instant> {
    Instant::now().checked_add(time)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl TunnelServiceHandler {
    /// Runs a tonic server until a signal, and stops it within a timeout even if its clients do not
    /// cooperate; [`Shutdown`] lists the steps. The router must have this handler's
    /// [`service`](Self::service); it can have other services and any settings, such as TLS. The
    /// connections come from `incoming`, for example a tonic
    /// [`TcpIncoming`](tonic::transport::server::TcpIncoming).
    ///
    /// Tonic's own `serve_with_shutdown` waits for ever for frozen clients and for connections that
    /// never send anything. Dropping the future closes all connections.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use tonic::transport::{Server, server::TcpIncoming};
    /// # use tunnel_server::{Shutdown, TunnelServiceHandler, server_for_tunnels};
    /// # async fn example(
    /// #     handler: TunnelServiceHandler,
    /// #     ctrl_c: impl Future<Output = ()> + Send + 'static,
    /// # ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// let incoming = TcpIncoming::bind("127.0.0.1:50051".parse()?)?.with_nodelay(Some(true));
    /// let router = server_for_tunnels(Server::builder()).add_service(handler.service());
    /// let shutdown = Shutdown::on(ctrl_c).timeout(Duration::from_secs(20));
    /// handler.serve(router, incoming, shutdown).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The error of tonic's server.
    pub async fn serve<L, I, IO, IE, B>(
        &self,
        router: Router<L>,
        incoming: I,
        shutdown: Shutdown,
    ) -> Result<(), tonic::transport::Error>
    where
        I: Stream<Item = Result<IO, IE>>,
        IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        IE: Into<BoxError>,
        L: Layer<Routes>,
        L::Service:
            Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
        <L::Service as Service<http::Request<Body>>>::Future: Send,
        <L::Service as Service<http::Request<Body>>>::Error: Into<BoxError> + Send,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let closing = Closing::default();
        let _closes_when_dropped = closing.all.clone().drop_guard();
        let incoming = incoming.map(|io| io.map(|io| Closable::new(io, &closing)));
        let (stop, stopped) = oneshot::channel();
        let stopped = stopped.map(|_| ());
        let serving = pin!(router.serve_with_incoming_shutdown(incoming, stopped));
        let stopping = self.stop(shutdown, stop, &closing);
        tokio::select! {
            served = serving => served,
            () = stopping => Ok(()),
        }
    }

    /// Runs the steps of a shutdown. Resolves some time after all connections were closed, unless tonic's
    /// server ends first.
    async fn stop(
        &self,
        shutdown: Shutdown,
        stop_listening: oneshot::Sender<()>,
        closing: &Closing,
    ) {
        shutdown.signal.await;
        let was_drained = self.is_drained();
        self.refuse_openings();
        if let Some((hook, notice)) = shutdown.not_ready {
            if self.has_siblings() {
                self.retire(notice);
            }
            let end = after(notice);
            match end {
                // A hook that takes too long is dropped.
                Some(at) => drop(timeout_at(at, hook).await),
                None => hook.await,
            }
            if !was_drained {
                until(end).await;
            }
        }
        let timeout = shutdown.timeout;
        let deadline = after(timeout);
        // Fails only if the server has ended, which drops this future too.
        let _ = stop_listening.send(());
        closing.silent.cancel();
        let farewell = FAREWELL.min(timeout / 2);
        tokio::select! {
            () = self.drain(timeout - farewell) => until(deadline).await,
            () = until(deadline) => {}
        }
        tracing::warn!("shutdown timeout is over, closing the remaining connections");
        closing.all.cancel();
        sleep(CLOSING).await;
    }
}
