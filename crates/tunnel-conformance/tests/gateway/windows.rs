//! Unread streams, and the other streams of their connection.

use futures::StreamExt as _;
use futures::stream;
use tonic::service::Routes;
use tonic::transport::Server;
use tunnel_client::ForwardTunnel;
use tunnel_conformance::client::{open, run};
use tunnel_conformance::feed::Feed;
use tunnel_conformance::payload::{assert_pattern, request};
use tunnel_conformance::proto::Script;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::service::scripted;
use tunnel_conformance::{Kind, Probe, TcpServer, TestChannel};
use tunnel_proto::grpctunnel::v1::client_to_server::Frame;
use tunnel_proto::grpctunnel::v1::{MessageData, NewStream};
use tunnel_server::{TunnelServiceHandler, server_for_tunnels, server_for_tunnels_and_calls};

use crate::support::by_hand::peer::RawCaller;
use crate::support::{eventually, guarded};

const MIB: usize = 1 << 20;

async fn assert_answers(channel: TestChannel) {
    let client = TestServiceClient::new(channel);
    let script = Script::named("beside it").echo_all();
    let outcome = run(&client, Kind::Unary, &script, vec![request(7, 100_000)]).await;
    assert_pattern(&outcome.expect_success()[0].payload, 7, 100_000);
}

/// Uploads of ordinary calls, each nearly as large as a stream's window.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_nobody_reads_leave_the_other_calls_of_their_connection_alone() {
    type Preset = fn(Server) -> Server;
    let presets: [(Preset, usize, u64); 2] = [
        (server_for_tunnels, 3, 15),
        // More than 16 MiB together, which was the window of a connection.
        (server_for_tunnels_and_calls, 24, 1),
    ];
    guarded(async {
        for (preset, uploads, messages) in presets {
            let probe = Probe::default();
            let handler = TunnelServiceHandler::builder().add_service(scripted(&probe));
            let handler = handler.build();
            let routes = Routes::new(handler.service()).add_service(scripted(&probe));
            let server = TcpServer::start(preset(Server::builder()), routes).await;
            let channel = server.channel().await;
            let mut stalled = Vec::new();
            for _ in 0..uploads {
                let client = TestServiceClient::new(TestChannel::new(channel.clone()));
                let sent = stream::repeat_with(|| request(1, MIB - 1024)).take(messages as usize);
                let (feed, mut watch) = Feed::new(sent.chain(stream::pending()));
                let script = Script::named("stalled").send_headers().pend();
                let call = open(&client, Kind::Bidi, script.request(feed)).await;
                stalled.push(call.expect("headers come"));
                watch.until_taken(messages).await;
            }
            assert_answers(TestChannel::new(channel.clone())).await;
            let tunnel = ForwardTunnel::new(channel).open().await.expect("accepted");
            assert_answers(TestChannel::new(tunnel)).await;
            drop(stalled);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_of_revision_zero_that_nobody_reads_leaves_its_neighbour_alone() {
    guarded(async {
        let probe = Probe::default();
        let handler = TunnelServiceHandler::builder().add_service(scripted(&probe));
        let handler = handler.build();
        let routes = Routes::new(handler.service());
        let server = TcpServer::start(server_for_tunnels(Server::builder()), routes).await;
        let channel = server.channel().await;
        let neighbour = ForwardTunnel::new(channel.clone()).open().await;
        let neighbour = TestChannel::new(neighbour.expect("accepted"));

        let unread = RawCaller::open(channel, false).await;
        let script = Script::named("unread").send_headers().pend().request(());
        let md = script.metadata().clone().into_headers();
        let headers = by_hand_headers(&md);
        unread.frame(
            1,
            Frame::NewStream(NewStream {
                method_name: "/tunnel.conformance.v1.TestService/Bidi".into(),
                request_headers: Some(headers),
                ..NewStream::default()
            }),
        );
        // Messages of 16 KiB, more in all than the window of a stream.
        for _ in 0..32 * MIB / 16_384 {
            let data = vec![0; 16_384].into();
            unread.frame(
                1,
                Frame::RequestMessage(MessageData {
                    size: 16_384,
                    data,
                    ..Default::default()
                }),
            );
        }
        let is_full = || {
            let stats = handler.stats();
            stats.iter().any(|(_, stats)| stats.unread_bytes >= 8 * MIB)
        };
        eventually(is_full).await;
        for _ in 0..50 {
            assert_answers(neighbour.clone()).await;
        }
        assert!(is_full(), "the stream is still not read");
    })
    .await;
}

fn by_hand_headers(headers: &http::HeaderMap) -> tunnel_proto::grpctunnel::v1::Metadata {
    let text = |value: &http::HeaderValue| value.to_str().expect("text").to_owned();
    let entries: Vec<_> = headers
        .iter()
        .map(|(k, v)| (k.to_string(), text(v)))
        .collect();
    let entries: Vec<_> = entries.iter().map(|(k, v)| (&**k, &**v)).collect();
    crate::support::by_hand::peer::md(&entries)
}
