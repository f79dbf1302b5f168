//! Backends behind one address, and their clients.

use std::time::Duration;

use tonic::service::Routes;
use tonic::transport::Server;
use tunnel_client::{Backoff, ForwardChannel, ForwardChannelBuilder, Gateway, TunnelId};
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::service::scripted;
pub(crate) use tunnel_conformance::testing::{
    LongCall, NEVER, assert_usable, eventually, guarded, short_call,
};
use tunnel_conformance::{Client, Probe, TcpServer, TestChannel};
use tunnel_server::{TunnelServiceHandler, TunnelServiceHandlerBuilder, server_for_tunnels};

/// A server with the scripted service, through tunnels and directly.
pub(crate) struct Backend {
    pub(crate) handler: TunnelServiceHandler,
    pub(crate) server: TcpServer,
}

impl Backend {
    pub(crate) async fn start(probe: &Probe) -> Self {
        Self::start_with(probe, |builder| builder).await
    }

    pub(crate) async fn start_with(
        probe: &Probe,
        settings: impl FnOnce(TunnelServiceHandlerBuilder) -> TunnelServiceHandlerBuilder,
    ) -> Self {
        let builder = TunnelServiceHandler::builder().add_service(scripted(probe));
        let handler = settings(builder).build();
        let routes = Routes::new(handler.service()).add_service(scripted(probe));
        let server = TcpServer::start(server_for_tunnels(Server::builder()), routes).await;
        Self { handler, server }
    }

    /// Waits until exactly this many tunnels are open.
    pub(crate) async fn has(&self, count: usize) {
        eventually(|| self.handler.tunnels().len() == count).await;
    }
}

/// A channel without backoff, before it connects.
pub(crate) fn channel(gateway: impl Into<Gateway>) -> ForwardChannelBuilder {
    let backoff = Backoff::default()
        .initial(Duration::from_millis(2))
        .cap(Duration::from_millis(5))
        .healthy_after(Duration::ZERO);
    ForwardChannel::builder(gateway).backoff(backoff)
}

pub(crate) fn client(channel: &ForwardChannel) -> Client {
    TestServiceClient::new(TestChannel::new(channel.clone()))
}

/// The only tunnel that takes calls, if there is one.
pub(crate) fn tunnel_of(channel: &ForwardChannel) -> Option<TunnelId> {
    match &channel.tunnels()[..] {
        [tunnel] => Some(tunnel.id()),
        _ => None,
    }
}
