//! Support for the tests of the binding.

pub(crate) mod body;
pub(crate) mod peer;
pub(crate) mod raw_service;

use std::net::SocketAddr;
use std::sync::Arc;

use futures::stream;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tunnel_client::{ForwardTunnel, TunnelChannel};
use tunnel_conformance::payload::request;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::service::scripted;
pub(crate) use tunnel_conformance::testing::{assert_usable, eventually, guarded};
use tunnel_conformance::{Client, Probe, TcpServer, TestChannel};
use tunnel_server::{TunnelServiceHandler, TunnelServiceHandlerBuilder, server_for_tunnels};

/// A client whose calls travel through a tunnel.
pub(crate) fn client(tunnel: &TunnelChannel) -> Client {
    TestServiceClient::new(TestChannel::new(tunnel.clone()))
}

/// A request of one message.
pub(crate) fn one_request() -> Vec<tunnel_conformance::proto::Request> {
    vec![request(1, 10)]
}

/// The same request as a stream.
pub(crate) fn one() -> stream::Iter<std::vec::IntoIter<tunnel_conformance::proto::Request>> {
    stream::iter(one_request())
}

/// A far end of tunnels with the scripted service, on its own runtime.
pub(crate) struct Far {
    pub(crate) handler: TunnelServiceHandler,
    pub(crate) server: TcpServer,
    pub(crate) probe: Probe,
}

impl Far {
    pub(crate) async fn start() -> Self {
        Self::start_with(TunnelServiceHandlerBuilder::build).await
    }

    /// The same with custom settings.
    pub(crate) async fn start_with(
        build: impl FnOnce(TunnelServiceHandlerBuilder) -> TunnelServiceHandler,
    ) -> Self {
        let probe = Probe::default();
        let builder = TunnelServiceHandler::builder().add_service(scripted(&probe));
        let handler = build(builder);
        let routes = Routes::new(handler.service());
        let server = TcpServer::start(server_for_tunnels(Server::builder()), routes).await;
        Self {
            handler,
            server,
            probe,
        }
    }

    /// A tunnel to be opened, on its own connection.
    pub(crate) async fn opening(&self) -> ForwardTunnel<Channel> {
        ForwardTunnel::new(self.server.channel().await)
    }

    /// Opens a tunnel on its own connection.
    pub(crate) async fn tunnel(&self) -> TunnelChannel {
        let opening = self.opening().await;
        opening.open().await.expect("the far end accepts a tunnel")
    }

    /// Waits until the handler lists no tunnel.
    pub(crate) async fn no_tunnels(&self) {
        eventually(|| self.handler.tunnels().is_empty()).await;
    }
}

/// A server on the test's runtime that can be shut down gracefully.
pub(crate) struct Graceful {
    pub(crate) address: SocketAddr,
    stop: Arc<Notify>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Graceful {
    pub(crate) async fn start(routes: Routes) -> Self {
        Self::start_with(server_for_tunnels(Server::builder()), routes).await
    }

    pub(crate) async fn start_with(mut server: Server, routes: Routes) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let server = server.add_routes(routes).serve_with_incoming_shutdown(
            TcpIncoming::from(listener),
            async move {
                stopped.notified().await;
            },
        );
        Self {
            address,
            stop,
            server: tokio::spawn(server),
        }
    }

    /// A connection to the server.
    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.address));
        let connected = endpoint.expect("a valid address").connect().await;
        connected.expect("the server accepts a connection")
    }

    /// Starts the shutdown.
    pub(crate) fn stop(&self) {
        self.stop.notify_one();
    }

    /// Waits until the server has shut down.
    pub(crate) async fn ended(self) {
        let ended = self.server.await.expect("the server does not panic");
        ended.expect("the server ends cleanly");
    }
}
