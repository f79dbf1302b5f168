//! A tunnel and ordinary calls on one connection.

use tunnel_client::{ForwardTunnel, endpoint_for_tunnels};
use tunnel_conformance::client::{open, run};
use tunnel_conformance::payload::request;
use tunnel_conformance::proto::Script;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::{Kind, Probe, TestChannel};

use crate::support::{Backend, guarded};

/// Together larger than the window of a stream.
const MESSAGES: u64 = 40;
const SIZE: usize = 1 << 20;

/// Three unread streams do not stop it either. See the docs of `endpoint_for_tunnels`.
#[tokio::test(flavor = "multi_thread")]
async fn an_unread_stream_of_an_ordinary_service_does_not_stop_a_tunnel() {
    guarded(async {
        let probe = Probe::default();
        let backend = Backend::start(&probe).await;
        let endpoint = endpoint_for_tunnels(backend.server.endpoint());
        let connection = endpoint.connect().await.expect("it connects");
        let tunnel = ForwardTunnel::new(connection.clone()).open().await;
        let tunnel = TestServiceClient::new(TestChannel::new(tunnel.expect("it opens")));
        let plain = TestServiceClient::new(TestChannel::new(connection));

        let mut unread = Vec::new();
        for number in 0..3 {
            let name = format!("unread {number}");
            let script = Script::named(&name).receive_all().send(MESSAGES, SIZE, 1);
            let call = script.request(tokio_stream::iter([request(1, 1)]));
            unread.push(
                open(&plain, Kind::ServerStream, call)
                    .await
                    .expect("headers"),
            );
            // The window is nearly full. h2 reserves a part of it.
            probe.sent(&name, 15).await;
        }
        for _ in 0..40 {
            let script = Script::named("beside").echo_all();
            let outcome = run(&tunnel, Kind::Unary, &script, vec![request(2, SIZE)]).await;
            outcome.expect_success();
        }
        drop(unread);
    })
    .await;
}
