//! Gateways that can be killed, and devices that count their calls.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tunnel_client::{LinksHandle, ReverseTunnelServer};
use tunnel_fleet::directory::MemoryDirectory;
use tunnel_fleet::{Fleet, FleetBuilder, FleetChannel, SESSION};
use tunnel_server::{AffinityKey, Opening, TunnelServiceHandler, server_for_tunnels};

/// The longest wait for something that happens.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The metadata key that names a device.
const DEVICE: &str = "device";

/// A gateway with a runtime of its own: dropping it ends everything at once, as a kill does.
pub(crate) struct TestGateway {
    pub(crate) fleet: Fleet,
    pub(crate) handler: TunnelServiceHandler,
    pub(crate) address: SocketAddr,
    runtime: Option<Runtime>,
}

impl TestGateway {
    pub(crate) async fn start(name: &str, directory: &MemoryDirectory) -> Self {
        Self::start_with(name, directory, |builder| builder).await
    }

    /// A gateway with a short lease, so that tests need not wait for it.
    pub(crate) async fn start_with(
        name: &str,
        directory: &MemoryDirectory,
        configure: impl FnOnce(FleetBuilder) -> FleetBuilder,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let hop = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let tunnels = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = tunnels.local_addr().expect("bound");
        let builder = Fleet::builder(name)
            .directory(directory.clone())
            .advertise(format!("http://{}", hop.local_addr().expect("bound")))
            .lease_ttl(Duration::from_secs(1))
            // However busy the machine is.
            .suspect_after(SOON);
        let fleet = configure(builder).build();
        let handler = TunnelServiceHandler::builder()
            .affinity_key(|opening: &Opening| opening.metadata_str(DEVICE).map(AffinityKey::from));
        let handler = fleet.watch_tunnels(handler).build();
        let joining = (fleet.clone(), handler.clone());
        let joined = runtime.spawn(async move {
            let (fleet, handler) = joining;
            let server = server_for_tunnels(Server::builder()).add_service(fleet.hop_service());
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(hop)));
            let server = server_for_tunnels(Server::builder()).add_service(handler.service());
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(tunnels)));
            fleet.join(&handler).await
        });
        joined.await.expect("no panic").expect("joins");
        Self {
            fleet,
            handler,
            address,
            runtime: Some(runtime),
        }
    }

    /// Ends the gateway as a kill does.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    pub(crate) fn channel(&self, key: &str) -> FleetChannel {
        self.fleet.channel(key)
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(SOON, wait).await;
    assert!(waited.is_ok(), "waited in vain until {what}");
}

/// A device: a service that counts its calls, and shows their metadata.
pub(crate) struct TestDevice {
    pub(crate) calls: Arc<Calls>,
    pub(crate) handle: LinksHandle,
    running: JoinHandle<()>,
}

/// The calls that a device has served.
#[derive(Default)]
pub(crate) struct Calls {
    begun: AtomicUsize,
    last: std::sync::Mutex<http::HeaderMap>,
    /// Calls of the service `wait` wait for it.
    gate: Notify,
}

impl Calls {
    pub(crate) fn count(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    pub(crate) fn last_metadata(&self) -> http::HeaderMap {
        self.last.lock().expect("no panic").clone()
    }
}

#[derive(Clone)]
struct Counting(Arc<Calls>);

#[tonic::async_trait]
impl Health for Counting {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        *self.0.last.lock().expect("no panic") = request.metadata().clone().into_headers();
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        if request.get_ref().service == "wait" {
            self.0.gate.notified().await;
        }
        let status = ServingStatus::Serving.into();
        Ok(Response::new(HealthCheckResponse { status }))
    }

    type WatchStream = futures::stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

impl TestDevice {
    /// A device with a tunnel to each of the gateways.
    pub(crate) async fn connect(key: &str, gateways: &[&TestGateway]) -> Self {
        let device = Self::start(key, gateways, "");
        device.handle.all_connected().await.expect("connects");
        device
    }

    /// A device with a session, for exclusive keys, and one tunnel that it does not open again.
    pub(crate) fn once(key: &str, gateway: &TestGateway, session: &str) -> Self {
        let (calls, server) = Self::build(key, &[gateway], session);
        let handle = server.handle();
        let running = tokio::spawn(async move {
            let _ = server.serve().await;
        });
        Self {
            calls,
            handle,
            running,
        }
    }

    /// A device with a session, for exclusive keys.
    pub(crate) fn start(key: &str, gateways: &[&TestGateway], session: &str) -> Self {
        let (calls, server) = Self::build(key, gateways, session);
        let handle = server.handle();
        let running = tokio::spawn(async move {
            server.run().await;
        });
        Self {
            calls,
            handle,
            running,
        }
    }

    fn build(
        key: &str,
        gateways: &[&TestGateway],
        session: &str,
    ) -> (Arc<Calls>, ReverseTunnelServer) {
        let calls = Arc::new(Calls::default());
        let endpoint = |gateway: &&TestGateway| {
            Endpoint::from_shared(format!("http://{}", gateway.address)).expect("legal")
        };
        let mut metadata = tonic::metadata::MetadataMap::new();
        metadata.insert(DEVICE, key.parse().expect("legal"));
        if !session.is_empty() {
            metadata.insert(SESSION, session.parse().expect("legal"));
        }
        let mut builder = ReverseTunnelServer::builder(endpoint(&gateways[0]))
            .metadata(metadata)
            .add_service(HealthServer::new(Counting(calls.clone())));
        for gateway in &gateways[1..] {
            builder = builder.gateway(endpoint(gateway));
        }
        (calls, builder.build())
    }
}

impl Drop for TestDevice {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Makes one call.
pub(crate) async fn check(channel: FleetChannel) -> Result<Response<HealthCheckResponse>, Status> {
    check_service(channel, "").await
}

/// Makes one call that the device does not answer.
pub(crate) async fn check_and_wait(channel: FleetChannel) -> Result<(), Status> {
    check_service(channel, "wait").await.map(|_| ())
}

async fn check_service(
    channel: FleetChannel,
    service: &str,
) -> Result<Response<HealthCheckResponse>, Status> {
    let request = HealthCheckRequest {
        service: service.into(),
    };
    let call = async move { HealthClient::new(channel).check(request).await };
    tokio::time::timeout(SOON, call).await.expect("an answer")
}
