//! Tunnels inside tunnels, over tonic on TCP.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::{BoxFuture, FutureExt};
use tonic::service::Routes;
use tonic::transport::Server;
use tunnel_client::{
    Config, ForwardTunnel, Gateway, ReverseTunnelServer, Revisions, TunnelChannel,
    endpoint_for_tunnels,
};
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

use super::device::DeviceRuntime;
use super::reverse::wait_for;
use super::settings::config;
use super::{Host, Offer, Path, TcpServer, TestChannel};

/// A tunnel inside a tunnel of the other direction, both with revision one.
#[derive(Clone, Copy, Debug)]
pub enum NestedPath {
    /// A device opens a reverse tunnel to the gateway, and the gateway opens a forward tunnel to
    /// the device through it.
    ForwardInReverse,
    /// A client opens a forward tunnel to the server, opens a reverse tunnel through it, and serves
    /// calls through the latter.
    ReverseInForward,
}

impl Path for NestedPath {
    fn host(&self, offer: Offer) -> BoxFuture<'_, Box<dyn Host>> {
        async move {
            let config = config(&offer, Revisions::OnlyOne);
            let host: Box<dyn Host> = match self {
                Self::ForwardInReverse => Box::new(Outer::reverse(offer.routes, config).await),
                Self::ReverseInForward => Box::new(Inner::forward(offer.routes, config).await),
            };
            host
        }
        .boxed()
    }
}

async fn serve(handler: &TunnelServiceHandler) -> TcpServer {
    let routes = Routes::new(handler.service());
    TcpServer::start(server_for_tunnels(Server::builder()), routes).await
}

/// Waits for `count` tunnels and returns the channel of the newest.
async fn newest(handler: &TunnelServiceHandler, count: usize) -> TunnelChannel {
    let tunnels = wait_for(&handler.as_channel(), count).await;
    let newest = tunnels.iter().max_by_key(|tunnel| tunnel.id());
    let channel = newest.and_then(|tunnel| tunnel.channel());
    channel.expect("a reverse tunnel")
}

/// A device that serves a handler of forward tunnels through a reverse tunnel.
struct Outer {
    gateway: TcpServer,
    handler: TunnelServiceHandler,
    device: DeviceRuntime,
    inner: TunnelServiceHandler,
    config: Config,
    connected: AtomicUsize,
}

impl Outer {
    async fn reverse(routes: Routes, config: Config) -> Self {
        let handler = TunnelServiceHandler::builder()
            .config(config.clone())
            .build();
        let inner = TunnelServiceHandler::builder()
            .config(config.clone())
            .add_routes(routes)
            .build();
        Self {
            gateway: serve(&handler).await,
            handler,
            device: DeviceRuntime::start(),
            inner,
            config,
            connected: AtomicUsize::new(0),
        }
    }
}

impl Host for Outer {
    fn connect(&self) -> BoxFuture<'_, TestChannel> {
        async {
            let device = ReverseTunnelServer::builder(self.gateway.endpoint())
                .add_service(self.inner.service())
                .config(self.config.clone())
                .build();
            self.device.spawn(async move {
                // Its end is what the case sees.
                let _ = device.serve().await;
            });
            let number = self.connected.fetch_add(1, Ordering::Relaxed) + 1;
            let outer = newest(&self.handler, number).await;
            let inner = ForwardTunnel::new(outer).config(self.config.clone());
            TestChannel::new(inner.open().await.expect("the device accepts a tunnel"))
        }
        .boxed()
    }

    fn kill(&self) {
        self.device.kill();
    }
}

/// A server that is called through reverse tunnels, which clients open through forward tunnels.
struct Inner {
    server: TcpServer,
    handler: TunnelServiceHandler,
    client: DeviceRuntime,
    routes: Routes,
    config: Config,
    connected: AtomicUsize,
}

impl Inner {
    async fn forward(routes: Routes, config: Config) -> Self {
        let handler = TunnelServiceHandler::builder()
            .config(config.clone())
            .build();
        let outer = TunnelServiceHandler::builder()
            .config(config.clone())
            .add_service(handler.service())
            .build();
        Self {
            server: serve(&outer).await,
            handler,
            client: DeviceRuntime::start(),
            routes,
            config,
            connected: AtomicUsize::new(0),
        }
    }
}

impl Host for Inner {
    fn connect(&self) -> BoxFuture<'_, TestChannel> {
        async {
            let endpoint = endpoint_for_tunnels(self.server.endpoint());
            let (routes, config) = (self.routes.clone(), self.config.clone());
            self.client.spawn(async move {
                let channel = endpoint.connect().await;
                let outer = ForwardTunnel::new(channel.expect("the server is there"))
                    .config(config.clone())
                    .open()
                    .await
                    .expect("the server accepts a tunnel");
                // Its end is what the case sees.
                let _ = ReverseTunnelServer::builder(Gateway::over(outer))
                    .add_routes(routes)
                    .config(config)
                    .build()
                    .serve()
                    .await;
            });
            let number = self.connected.fetch_add(1, Ordering::Relaxed) + 1;
            TestChannel::new(newest(&self.handler, number).await)
        }
        .boxed()
    }

    fn kill(&self) {
        self.client.kill();
    }
}
