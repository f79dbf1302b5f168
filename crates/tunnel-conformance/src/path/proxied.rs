//! Plain tonic to a gateway that passes calls on to a device by key, and plain tonic from the device to its server.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::{BoxFuture, FutureExt};
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::transport::{Endpoint, Server};
use tunnel_client::{Config, ReverseTunnelServer, Revisions};
use tunnel_server::{AffinityKey, KeyFrom, Opening, TunnelServiceHandler, server_for_tunnels};

use super::device::DeviceRuntime;
use super::settings::config;
use super::{Host, Offer, Path, TcpServer, TestChannel};

/// The metadata key that names a device.
const KEY: &str = "device";

/// The authority of all devices.
const SUFFIX: &str = "devices";

/// Clients without a tunnel call devices by their authority. Each channel is to a new device, which forwards its calls
/// to one server.
#[derive(Clone, Copy, Debug)]
pub struct ProxiedPath;

struct ProxiedHost {
    gateway: TcpServer,
    server: TcpServer,
    device: DeviceRuntime,
    config: Config,
    devices: AtomicUsize,
}

impl Path for ProxiedPath {
    fn host(&self, offer: Offer) -> BoxFuture<'_, Box<dyn Host>> {
        async move {
            let config = config(&offer, Revisions::OnlyOne);
            let handler = TunnelServiceHandler::builder()
                .config(config.clone())
                .affinity_key(|opening: &Opening| opening.metadata_str(KEY).map(AffinityKey::from))
                .build();
            let proxy = handler.proxy(KeyFrom::authority(SUFFIX));
            let routes = Routes::new(handler.service()).into_axum_router();
            let routes = routes.fallback_service(proxy).into();
            let gateway = server_for_tunnels(Server::builder());
            let host = ProxiedHost {
                gateway: TcpServer::start(gateway, routes).await,
                server: TcpServer::start(Server::builder(), offer.routes).await,
                device: DeviceRuntime::start(),
                config,
                devices: AtomicUsize::new(0),
            };
            Box::new(host) as Box<dyn Host>
        }
        .boxed()
    }
}

impl Host for ProxiedHost {
    fn connect(&self) -> BoxFuture<'_, TestChannel> {
        async {
            let number = self.devices.fetch_add(1, Ordering::Relaxed);
            let name = format!("device-{number}");
            let mut metadata = MetadataMap::new();
            metadata.insert(KEY, name.parse().expect("a legal value"));
            let (gateway, server) = (self.gateway.endpoint(), self.server.endpoint());
            let config = self.config.clone();
            let (tell, connected) = futures::channel::oneshot::channel();
            self.device.spawn(async move {
                let device = ReverseTunnelServer::builder(gateway)
                    .forward_to(server.connect_lazy())
                    .metadata(metadata)
                    .config(config)
                    .build();
                let handle = device.handle();
                tokio::join!(device.run(), async {
                    let _ = tell.send(handle.connected().await);
                });
            });
            let connected = connected.await.expect("the device runs");
            connected.expect("the gateway accepts a tunnel");
            let authority = format!("http://{name}.{SUFFIX}").parse();
            let endpoint: Endpoint = self.gateway.endpoint();
            let channel = endpoint.origin(authority.expect("legal")).connect().await;
            TestChannel::new(channel.expect("the gateway accepts a connection"))
        }
        .boxed()
    }
}
