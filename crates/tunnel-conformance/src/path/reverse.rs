//! Reverse tunnels over tonic on TCP: the server of calls dials.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::transport::Server;
use tunnel_client::{Config, ReverseTunnelServer, Revisions};
use tunnel_server::{
    AcceptedTunnel, AffinityKey, Opening, ReverseChannel, TunnelServiceHandler, server_for_tunnels,
};

use super::device::DeviceRuntime;
use super::settings::config;
use super::{Host, Offer, Path, TcpServer, TestChannel};

/// The time limit for the tunnels of a device to appear at the gateway.
const PATIENCE: Duration = Duration::from_secs(60);

/// The metadata key that names a device.
const KEY: &str = "device";

/// The channel that a gateway uses.
#[derive(Clone, Copy, Debug)]
enum Via {
    /// The channel of one tunnel.
    Tunnel,
    /// A pool of all tunnels.
    Pool,
    /// A pool of the tunnels with one key.
    KeyPool,
}

/// A gateway with devices that dial it. Each channel is to a new device, through the device's
/// tunnel or through a pool.
#[derive(Clone, Copy, Debug)]
pub struct ReversePath {
    revisions: Revisions,
    via: Via,
    inline: bool,
}

impl ReversePath {
    /// A tunnel with revision one, which has flow control.
    pub const REVISION_ONE: Self = Self {
        revisions: Revisions::OnlyOne,
        via: Via::Tunnel,
        inline: false,
    };

    /// A tunnel with revision one whose device polls each handler inline first.
    pub const INLINE: Self = Self {
        inline: true,
        ..Self::REVISION_ONE
    };

    /// A tunnel with revision zero, which has no flow control.
    pub const REVISION_ZERO: Self = Self {
        revisions: Revisions::OnlyZero,
        via: Via::Tunnel,
        inline: false,
    };

    /// All tunnels of the gateway, with several to the same device. Calls rotate over the tunnels.
    pub const POOL: Self = Self {
        revisions: Revisions::ZeroAndOne,
        via: Via::Pool,
        inline: false,
    };

    /// The tunnels of one device, beside those of other devices. Calls rotate over the tunnels.
    pub const KEY_POOL: Self = Self {
        revisions: Revisions::ZeroAndOne,
        via: Via::KeyPool,
        inline: false,
    };
}

struct ReverseHost {
    gateway: TcpServer,
    handler: TunnelServiceHandler,
    device: DeviceRuntime,
    routes: Routes,
    config: Config,
    via: Via,
    inline: bool,
    devices: AtomicUsize,
}

impl Path for ReversePath {
    fn host(&self, offer: Offer) -> BoxFuture<'_, Box<dyn Host>> {
        async move {
            let handler = TunnelServiceHandler::builder()
                .config(config(&offer, self.revisions))
                .affinity_key(|opening: &Opening| opening.metadata_str(KEY).map(AffinityKey::from))
                .build();
            let routes = Routes::new(handler.service());
            let gateway = TcpServer::start(server_for_tunnels(Server::builder()), routes).await;
            let host = ReverseHost {
                gateway,
                handler,
                device: DeviceRuntime::start(),
                config: config(&offer, Revisions::ZeroAndOne),
                routes: offer.routes,
                via: self.via,
                inline: self.inline,
                devices: AtomicUsize::new(0),
            };
            Box::new(host) as Box<dyn Host>
        }
        .boxed()
    }
}

impl ReverseHost {
    /// Starts a device with this many tunnels and waits until all of them accept calls.
    async fn dial(&self, name: &str, tunnels: usize) -> ReverseChannel {
        let mut metadata = MetadataMap::new();
        metadata.insert(KEY, name.parse().expect("a legal value"));
        let channel = self.handler.key_as_channel(name);
        for open in 1..=tunnels {
            let device = ReverseTunnelServer::builder(self.gateway.endpoint())
                .add_routes(self.routes.clone())
                .metadata(metadata.clone())
                .config(self.config.clone())
                .poll_handlers_inline(self.inline)
                .build();
            self.device.spawn(async move {
                // Its end is what the case sees.
                let _ = device.serve().await;
            });
            wait_for(&channel, open).await;
        }
        channel
    }
}

/// Waits until `count` tunnels accept calls.
pub(super) async fn wait_for(channel: &ReverseChannel, count: usize) -> Vec<AcceptedTunnel> {
    let listed = async {
        loop {
            let tunnels = channel.tunnels();
            if tunnels.len() >= count {
                return tunnels;
            }
            tokio::task::yield_now().await;
        }
    };
    let listed = tokio::time::timeout(PATIENCE, listed).await;
    listed.expect("the gateway accepts a tunnel")
}

impl Host for ReverseHost {
    fn connect(&self) -> BoxFuture<'_, TestChannel> {
        async {
            let number = self.devices.fetch_add(1, Ordering::Relaxed);
            let name = format!("device-{number}");
            match self.via {
                Via::Tunnel => {
                    let tunnels = self.dial(&name, 1).await.tunnels();
                    let channel = tunnels[0].channel().expect("a reverse tunnel");
                    TestChannel::new(channel)
                }
                Via::Pool => {
                    self.dial(&name, 3).await;
                    TestChannel::new(self.handler.as_channel())
                }
                Via::KeyPool => {
                    self.dial("another device", 1).await;
                    TestChannel::new(self.dial(&name, 3).await)
                }
            }
        }
        .boxed()
    }

    fn kill(&self) {
        self.device.kill();
    }
}
