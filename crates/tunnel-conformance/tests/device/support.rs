//! Gateways and devices.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::transport::{Endpoint, Server};
use tunnel_client::{
    Backoff, Gateway, LinkState, LinkStatus, LinksHandle, ReverseTunnelServer,
    ReverseTunnelServerBuilder, StopReason,
};
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::service::scripted;
pub(crate) use tunnel_conformance::testing::{LongCall, NEVER, assert_usable, eventually, guarded};
use tunnel_conformance::{Client, Probe, TcpServer, TestChannel};
use tunnel_server::{
    AcceptedTunnel, TunnelServiceHandler, TunnelServiceHandlerBuilder, server_for_tunnels,
};

/// A backoff without waits after any failure.
pub(crate) fn no_waits() -> Backoff {
    Backoff::default()
        .initial(Duration::from_millis(2))
        .cap(Duration::from_millis(5))
        .refused_cap(Duration::from_millis(5))
        .healthy_after(Duration::ZERO)
}

/// The gateway that devices dial.
pub(crate) struct TestGateway {
    pub(crate) handler: TunnelServiceHandler,
    pub(crate) server: TcpServer,
}

impl TestGateway {
    pub(crate) async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    /// Three gateways.
    pub(crate) async fn three() -> [Self; 3] {
        [
            Self::start().await,
            Self::start().await,
            Self::start().await,
        ]
    }

    /// The same with custom settings.
    pub(crate) async fn start_with(
        settings: impl FnOnce(TunnelServiceHandlerBuilder) -> TunnelServiceHandlerBuilder,
    ) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), settings).await
    }

    /// The same at an address.
    pub(crate) async fn start_at(
        address: SocketAddr,
        settings: impl FnOnce(TunnelServiceHandlerBuilder) -> TunnelServiceHandlerBuilder,
    ) -> Self {
        let handler = settings(TunnelServiceHandler::builder()).build();
        let routes = Routes::new(handler.service());
        let server = server_for_tunnels(Server::builder());
        let server = TcpServer::start_at(address, server, routes).await;
        Self { handler, server }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.server.endpoint()
    }

    /// Waits until exactly this many tunnels take calls.
    pub(crate) async fn has(&self, count: usize) -> Vec<AcceptedTunnel> {
        let channel = self.handler.as_channel();
        eventually(|| channel.tunnels().len() == count).await;
        channel.tunnels()
    }

    /// Waits for a tunnel that takes calls and is not the old one.
    pub(crate) async fn has_another_than(&self, old: &AcceptedTunnel) -> AcceptedTunnel {
        let channel = self.handler.as_channel();
        let another = || {
            let mut tunnels = channel.tunnels().into_iter();
            tunnels.find(|tunnel| tunnel.info().id() != old.info().id())
        };
        eventually(|| another().is_some()).await;
        another().unwrap_or_else(|| old.clone())
    }

    /// Waits until no tunnel and no call is left.
    pub(crate) async fn is_left(&self) {
        eventually(|| self.handler.tunnels().is_empty()).await;
    }

    /// A client whose calls go to the devices.
    pub(crate) fn client(&self) -> Client {
        TestServiceClient::new(TestChannel::new(self.handler.as_channel()))
    }
}

/// A client whose calls go through one tunnel.
pub(crate) fn client_of(tunnel: &AcceptedTunnel) -> Client {
    let channel = tunnel.channel().expect("a reverse tunnel");
    TestServiceClient::new(TestChannel::new(channel))
}

/// A device that serves the scripted service, before it runs.
pub(crate) fn device(gateway: impl Into<Gateway>) -> (ReverseTunnelServerBuilder, Probe) {
    let probe = Probe::default();
    let builder = ReverseTunnelServer::builder(gateway)
        .backoff(no_waits())
        .add_service(scripted(&probe));
    (builder, probe)
}

/// A running device.
pub(crate) struct Running {
    pub(crate) handle: LinksHandle,
    pub(crate) task: JoinHandle<StopReason>,
}

impl Running {
    pub(crate) fn start(server: ReverseTunnelServer) -> Self {
        let handle = server.handle();
        let task = tokio::spawn(server.run());
        Self { handle, task }
    }

    /// Waits until a link's status satisfies the condition.
    pub(crate) async fn until(
        &self,
        link: usize,
        wanted: impl Fn(&LinkStatus) -> bool,
    ) -> LinkStatus {
        let mut links = self.handle.watch();
        let links = links.wait_for(|links| links.get(link).is_some_and(&wanted));
        links.await.expect("the handle lives")[link].clone()
    }

    /// Waits until a link's state satisfies the condition.
    pub(crate) async fn state(&self, link: usize, wanted: impl Fn(&LinkState) -> bool) {
        self.until(link, |status| wanted(status.state())).await;
    }

    /// Waits until the device ends, and checks the reason.
    pub(crate) async fn ends_with(self, reason: StopReason) {
        assert_eq!(self.task.await.expect("it does not panic"), reason);
        for link in self.handle.links() {
            assert!(
                matches!(link.state(), LinkState::Stopped(why) if *why == reason),
                "{link:?}"
            );
            assert!(!link.is_connected());
        }
    }
}
