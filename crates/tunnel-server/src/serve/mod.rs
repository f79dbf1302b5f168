//! Serving until a signal, and stopping at a deadline whatever clients do.

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
/// 1. The signal. New tunnels are refused from now on with UNAVAILABLE, marked as not
///    processed and with a `grpc-retry-pushback-ms` of 50 to 150, so that they are opened
///    elsewhere at once.
/// 2. With [`not_ready`](Self::not_ready): the hook runs, for example to report NOT_SERVING to
///    health checks. For the time given with it the listener goes on accepting connections,
///    and tunnels and ordinary calls go on as before, so that load balancers can notice.
/// 3. The listener closes, and with it connections on which nothing was said yet. Clients are
///    told to use other connections (HTTP/2 GOAWAY), and all tunnels are
///    [drained](TunnelServiceHandler::drain). Calls in flight go on.
/// 4. One second before the deadline (or half-way to it, if it is nearer than two seconds) calls
///    in flight in tunnels are ended with UNAVAILABLE.
/// 5. At the deadline every connection is closed, whatever its client does: frozen clients and
///    calls that go on among them.
///
/// The server stops earlier if all connections have ended earlier.
///
/// ```
/// use std::time::Duration;
/// use tunnel_server::Shutdown;
///
/// let shutdown = Shutdown::on(async { /* tokio::signal::ctrl_c().await */ })
///     .within(Duration::from_secs(20));
/// # let _ = shutdown;
/// ```
#[must_use = "for TunnelServiceHandler::serve"]
pub struct Shutdown {
    signal: BoxFuture<'static, ()>,
    not_ready: Option<(BoxFuture<'static, ()>, Duration)>,
    within: Duration,
}

impl Shutdown {
    /// Stops when `signal` resolves.
    pub fn on(signal: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            signal: signal.boxed(),
            not_ready: None,
            within: Duration::from_secs(10),
        }
    }

    /// How long after the drain has begun everything is closed. Default: 10 s.
    pub fn within(mut self, deadline: Duration) -> Self {
        self.within = deadline;
        self
    }

    /// What runs first after the signal, and for how long the server then goes on as before
    /// while load balancers notice; a little longer than they take between two health checks.
    /// The hook counts as part of that time, and is dropped at its end. Default: no hook, no
    /// time.
    ///
    /// With `tonic-health`:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tunnel_server::{Shutdown, TunnelService};
    /// # fn example(signal: impl Future<Output = ()> + Send + 'static) {
    /// let (reporter, health) = tonic_health::server::health_reporter();
    /// // router.add_service(health)
    /// let shutdown = Shutdown::on(signal).not_ready(Duration::from_secs(5), async move {
    ///     reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    ///     reporter.set_not_serving::<TunnelService>().await;
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
            .field("within", &self.within)
            .field("notice", &self.not_ready.as_ref().map(|(_, notice)| notice))
            .finish_non_exhaustive()
    }
}

/// When a span of time ends that begins now; `None` if never.
fn after(span: Duration) -> Option<Instant> {
    Instant::now().checked_add(span)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl TunnelServiceHandler {
    /// Serves a tonic server until it is told to stop, and stops it by a deadline whatever its
    /// clients do; [`Shutdown`] says how. `router` is one that has this handler's
    /// [`service`](Self::service), with any settings (TLS among them) and other services;
    /// `incoming` are its connections, for example a tonic
    /// [`TcpIncoming`](tonic::transport::server::TcpIncoming).
    ///
    /// tonic's own `serve_with_shutdown` waits without end for clients that have frozen, and
    /// for connections that never said anything. When the future is dropped, all connections are
    /// closed.
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
    /// let shutdown = Shutdown::on(ctrl_c).within(Duration::from_secs(20));
    /// handler.serve(router, incoming, shutdown).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// What tonic's server failed with.
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

    /// Resolves some time after everything was closed; until then tonic's server may end by
    /// itself.
    async fn stop(
        &self,
        shutdown: Shutdown,
        stop_listening: oneshot::Sender<()>,
        closing: &Closing,
    ) {
        shutdown.signal.await;
        self.refuse_openings();
        if let Some((hook, notice)) = shutdown.not_ready {
            let end = after(notice);
            match end {
                // A hook that takes too long is dropped.
                Some(at) => drop(timeout_at(at, hook).await),
                None => hook.await,
            }
            until(end).await;
        }
        let within = shutdown.within;
        let deadline = after(within);
        // Fails only if the server has ended, which ends this too.
        let _ = stop_listening.send(());
        closing.silent.cancel();
        let farewell = FAREWELL.min(within / 2);
        tokio::select! {
            () = self.drain(within - farewell) => until(deadline).await,
            () = until(deadline) => {}
        }
        tracing::warn!("closing connections that clients have kept open until the deadline");
        closing.all.cancel();
        sleep(CLOSING).await;
    }
}
