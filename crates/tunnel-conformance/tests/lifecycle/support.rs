//! A gateway that can be killed, stopped gracefully, and restarted at its address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tunnel_client::{Backoff, Gateway as Dialled, ReverseTunnelServer, ReverseTunnelServerBuilder};
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::service::scripted;
pub(crate) use tunnel_conformance::testing::{assert_usable, eventually, guarded};
use tunnel_conformance::{Client, Probe, TestChannel};
use tunnel_server::{AffinityKey, Opening, ReverseChannel, TunnelServiceHandler};

use crate::front::Front;

/// The metadata that names a device.
pub(crate) const KEY: &str = "device";

/// A runtime that can be killed with everything on it.
pub(crate) fn runtime(name: &str) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(name)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// A gateway that can be killed like a process.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) handler: TunnelServiceHandler,
    stop: Arc<Notify>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
    runtime: Option<Runtime>,
}

impl Gateway {
    /// Starts a gateway on a free port.
    pub(crate) async fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), |server| server).await
    }

    /// Starts a gateway at this address with these settings.
    pub(crate) async fn start_at(
        address: SocketAddr,
        settings: impl FnOnce(Server) -> Server,
    ) -> Self {
        let handler = TunnelServiceHandler::builder()
            .affinity_key(|opening: &Opening| opening.metadata_str(KEY).map(AffinityKey::from))
            .build();
        let runtime = runtime("gateway");
        let listener = runtime.spawn(bind(address)).await.expect("no panic");
        let address = listener.local_addr().expect("bound");
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let stop = Arc::new(Notify::new());
        let (stopped, draining) = (stop.clone(), handler.clone());
        let routes = Routes::new(handler.service()).add_service(Front::new(&handler));
        let server = settings(tunnel_server::server_for_tunnels(Server::builder()));
        let serving =
            { server }
                .add_routes(routes)
                .serve_with_incoming_shutdown(incoming, async move {
                    stopped.notified().await;
                    draining.drain(DRAIN).await;
                });
        Self {
            address,
            handler,
            stop,
            serving: runtime.spawn(serving),
            runtime: Some(runtime),
        }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).expect("a valid address")
    }

    /// A client that calls a device from the gateway's process.
    pub(crate) fn client(&self, key: &str) -> Client {
        client(self.handler.key_as_channel(key))
    }

    /// Waits until this many tunnels take calls.
    pub(crate) async fn has(&self, count: usize) {
        let channel = self.handler.as_channel();
        eventually(|| channel.tunnels().len() == count).await;
    }

    /// Kills the gateway. Returns when its port is free.
    pub(crate) async fn kill(mut self) -> SocketAddr {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        drop(bind(self.address).await);
        self.address
    }

    /// Begins a graceful stop, which drains the gateway's tunnels.
    pub(crate) fn begin_stop(&self) {
        self.stop.notify_one();
    }

    /// Waits until the gateway has stopped.
    pub(crate) async fn stopped(mut self) -> SocketAddr {
        let ended = (&mut self.serving)
            .await
            .expect("the server does not panic");
        ended.expect("the server ends cleanly");
        self.kill().await
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The time for calls in flight when a gateway stops. No test needs it all.
pub(crate) const DRAIN: Duration = Duration::from_secs(60);

/// Binds a port as soon as it is free. The sockets of a killed runtime close a little later.
async fn bind(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                tokio::task::yield_now().await;
            }
            Err(error) => panic!("{address}: {error}"),
        }
    }
}

pub(crate) fn client(channel: ReverseChannel) -> Client {
    TestServiceClient::new(TestChannel::new(channel))
}

/// A backoff with short waits.
pub(crate) fn short_waits() -> Backoff {
    Backoff::default()
        .initial(Duration::from_millis(5))
        .cap(Duration::from_millis(50))
        .healthy_after(Duration::ZERO)
}

/// The builder of a device with this name.
pub(crate) fn device(
    key: &str,
    gateway: impl Into<Dialled>,
    probe: &Probe,
) -> ReverseTunnelServerBuilder {
    let mut metadata = tonic::metadata::MetadataMap::new();
    metadata.insert(KEY, key.parse().expect("a legal value"));
    ReverseTunnelServer::builder(gateway)
        .metadata(metadata)
        .backoff(short_waits())
        .add_service(scripted(probe))
}
