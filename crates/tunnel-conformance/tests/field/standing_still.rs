//! Streams of one connection: unread data on one stream must not stop the others.

use std::time::Duration;

use futures::stream;
use tonic::service::Routes;
use tonic::transport::{Channel, Server};
use tunnel_client::{Config, Revisions};
use tunnel_conformance::client::open;
use tunnel_conformance::feed::Feed;
use tunnel_conformance::payload::request;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::proto::{Request, Script};
use tunnel_conformance::proxy::Way;
use tunnel_conformance::service::scripted;
use tunnel_conformance::{Client, FaultProxy, Kind, Probe, TcpServer, TestChannel};
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

use crate::support::{assert_usable, connect, guarded, open_tunnel};

/// The size of the messages that are left unread.
const MESSAGE: usize = 64 << 10;

/// A server that offers the same service through tunnels and to ordinary clients.
struct Both {
    probe: Probe,
    link: FaultProxy,
    _server: TcpServer,
}

impl Both {
    async fn start() -> Self {
        let probe = Probe::default();
        // The timeout is longer than the test, so unread data stays unread.
        let config = Config::builder().unread_stall_timeout(Duration::from_secs(600));
        let handler = TunnelServiceHandler::builder()
            .config(config.build().expect("valid"))
            .add_service(scripted(&probe))
            .build();
        let routes = Routes::new(handler.service()).add_service(scripted(&probe));
        let server = TcpServer::start(server_for_tunnels(Server::builder()), routes).await;
        let link = FaultProxy::to(server.address()).await;
        Self {
            probe,
            link,
            _server: server,
        }
    }

    /// Waits until no data moves, because every unread stream has filled its windows.
    async fn stalled(&self, way: Way) {
        let mut before = self.link.traffic(way);
        let mut quiet = 0;
        // A pause on a busy machine may be taken for a stall. It only makes the test weaker.
        while quiet < 5 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = self.link.traffic(way);
            let moved = now != before || now.taken < 1_000_000;
            quiet = if moved { 0 } else { quiet + 1 };
            before = now;
        }
    }

    /// Panics unless an ordinary client and a tunnel on the same connection still work.
    async fn assert_both_usable(&self, connection: &Channel, tunnel: &Client) {
        assert_usable(tunnel).await;
        assert_usable(&plain(connection)).await;
        assert_eq!(self.link.accepted(), 1);
    }
}

fn plain(connection: &Channel) -> Client {
    TestServiceClient::new(TestChannel::new(connection.clone()))
}

async fn tunnel(connection: &Channel, revisions: Revisions) -> Client {
    let config = Config::builder()
        .revisions(revisions)
        .unread_stall_timeout(Duration::from_secs(600));
    let tunnel = open_tunnel(connection.clone(), config.build().expect("valid")).await;
    TestServiceClient::new(TestChannel::new(tunnel))
}

fn endless() -> tonic::Request<impl futures::Stream<Item = Request> + Send + 'static> {
    let script = Script::named("unread").send(u64::MAX, MESSAGE, 1);
    script.request(stream::iter([request(1, 20)]))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unread_stream_of_an_ordinary_service_stops_no_tunnel_on_its_connection() {
    guarded(async {
        let both = Both::start().await;
        let connection = connect(&both.link).await;
        let tunnel = tunnel(&connection, Revisions::OnlyOne).await;
        let unread = open(&plain(&connection), Kind::ServerStream, endless()).await;
        both.stalled(Way::FromTarget).await;
        both.assert_both_usable(&connection, &tunnel).await;
        drop(unread);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_tunnels_without_flow_control_stop_no_other_on_their_connection() {
    guarded(async {
        let both = Both::start().await;
        let connection = connect(&both.link).await;
        let neighbour = tunnel(&connection, Revisions::OnlyOne).await;
        let mut unread = Vec::new();
        for _ in 0..2 {
            let zero = tunnel(&connection, Revisions::OnlyZero).await;
            unread.push(open(&zero, Kind::ServerStream, endless()).await);
        }
        both.stalled(Way::FromTarget).await;
        both.assert_both_usable(&connection, &neighbour).await;
        drop(unread);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_uploads_of_an_ordinary_client_stop_no_other_call_of_its_connection() {
    guarded(async {
        let both = Both::start().await;
        let connection = connect(&both.link).await;
        let tunnel = tunnel(&connection, Revisions::OnlyOne).await;
        let uploads: Vec<_> = (0..2)
            .map(|_| {
                let (feed, _) = Feed::endless(1, MESSAGE);
                let client = plain(&connection);
                let upload = Script::named("unread").send_headers().pend().request(feed);
                tokio::spawn(async move {
                    let _held = open(&client, Kind::Bidi, upload).await;
                    std::future::pending::<()>().await;
                })
            })
            .collect();
        both.probe
            .until("unread", |unread| unread.started == 2)
            .await;
        both.stalled(Way::ToTarget).await;
        both.assert_both_usable(&connection, &tunnel).await;
        uploads.iter().for_each(tokio::task::JoinHandle::abort);
    })
    .await;
}
