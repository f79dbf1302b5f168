//! Many calls that begin or end at once.

use std::time::Duration;

use futures::future::join_all;
use futures::stream::{self, StreamExt};
use tokio::time::Instant;
use tonic::transport::Server;
use tonic::{Code, Request};
use tunnel_client::{EndReason, endpoint_for_tunnels};
use tunnel_conformance::payload::request;
use tunnel_conformance::proto::Script;
use tunnel_conformance::service::scripted;
use tunnel_conformance::{Kind, Probe, TcpServer};
use tunnel_proto::grpctunnel::v1::tunnel_service_client::TunnelServiceClient;
use tunnel_proto::grpctunnel::v1::{ClientToServer, NewStream, client_to_server, server_to_client};
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

use crate::support::{Path, Rig, guarded};

/// More calls than the limit of unread replies, and fewer than the stream limit.
const CALLS: usize = 5_000;

fn roomy(config: tunnel_client::ConfigBuilder) -> tunnel_client::ConfigBuilder {
    config.max_concurrent_streams(8_192).overcommit(true)
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_deadlines_that_pass_at_once_end_only_their_calls() {
    guarded(async {
        for path in Path::TUNNELS {
            let rig = Rig::start_with(path, roomy).await;
            let passes = Instant::now() + Duration::from_secs(3);
            let calls = (0..CALLS).map(|_| {
                let mut client = rig.client.clone();
                async move {
                    let mut call = Script::named("slow").pend().request(request(1, 20));
                    call.set_timeout(passes - Instant::now());
                    client.unary(call).await.map(drop)
                }
            });
            for result in join_all(calls).await {
                let status = result.expect_err("the handler never answers");
                let late = [Code::DeadlineExceeded, Code::Cancelled].contains(&status.code());
                assert!(late, "{path:?}: {status:?}");
            }
            rig.assert_lives().await;
            rig.handlers_gone("slow").await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_cuts_five_thousand_calls_ends_the_tunnel_as_drained() {
    guarded(async {
        for path in Path::TUNNELS {
            let rig = Rig::start_with(path, roomy).await;
            let tunnel = rig.tunnel.as_ref().expect("this path has one");
            let calls = (0..CALLS).map(|_| {
                let mut client = rig.client.clone();
                async move {
                    let call = Script::named("slow").pend().request(request(1, 20));
                    client.unary(call).await.map(drop)
                }
            });
            let drain = async {
                let all =
                    |record: &tunnel_conformance::probe::Record| record.started == CALLS as u64;
                rig.probe.until("slow", all).await;
                let grace = Duration::from_millis(10);
                match &tunnel.device {
                    Some(device) => device.drain(grace).await,
                    None => drop(tunnel.handle.drain(grace).await),
                }
            };
            let (results, ()) = tokio::join!(join_all(calls), drain);
            for result in results {
                let status = result.expect_err("the handler never answers");
                assert_eq!(status.code(), Code::Unavailable, "{path:?}: {status:?}");
            }
            for reason in [tunnel.channel.ended().await, tunnel.handle.closed().await] {
                let by_error = matches!(reason, EndReason::Error(_));
                assert!(!by_error, "{path:?}: {reason:?}");
            }
        }
    })
    .await;
}

/// The caller exceeds the handler's limit and reads the refusals.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_opens_by_a_peer_that_reads_ends_no_tunnel() {
    guarded(async {
        const LIMIT: usize = 100;
        let probe = Probe::default();
        let config = tunnel_client::Config::builder().max_concurrent_streams(LIMIT);
        let handler = TunnelServiceHandler::builder()
            .config(config.build().expect("valid"))
            .add_service(scripted(&probe))
            .build();
        let routes = tonic::service::Routes::new(handler.service());
        let server = TcpServer::start(server_for_tunnels(Server::builder()), routes).await;
        let channel = endpoint_for_tunnels(server.endpoint()).connect().await;
        let opens = (1..=2 * CALLS as i64).map(|stream_id| ClientToServer {
            stream_id,
            frame: Some(client_to_server::Frame::NewStream(NewStream {
                method_name: Kind::Bidi.method().to_owned(),
                initial_window_size: 65_536,
                protocol_revision: 1,
                ..Default::default()
            })),
        });
        let mut outer = Request::new(stream::iter(opens).chain(stream::pending()));
        let (key, value) = (tunnel_core::NEGOTIATE_HEADER, tunnel_core::NEGOTIATE_VALUE);
        outer
            .metadata_mut()
            .insert(key, value.parse().expect("legal"));
        let mut caller = TunnelServiceClient::new(channel.expect("it listens"));
        let answer = caller.open_tunnel(outer).await.expect("it is accepted");
        let mut heard = answer.into_inner();
        let mut refused = 0;
        while refused < 2 * CALLS - LIMIT {
            let frame = heard.message().await.expect("the tunnel lives");
            let frame = frame.expect("the tunnel lives").frame;
            if let Some(server_to_client::Frame::CloseStream(close)) = frame {
                let code = Code::from_i32(close.status.expect("refused").code);
                assert_eq!(code, Code::ResourceExhausted);
                refused += 1;
            }
        }
        assert_eq!(handler.tunnels().len(), 1);
    })
    .await;
}

/// No call is refused, whether the far end's limit or the local limit applies.
#[tokio::test(flavor = "multi_thread")]
async fn calls_over_the_stream_limit_wait_and_are_answered() {
    guarded(async {
        for path in Path::ALL {
            let rig = Rig::start(path).await;
            let script = Script::named("gated").wait("gate").echo_all();
            let calls = (0..1_500).map(|_| {
                let (mut client, script) = (rig.client.clone(), script.clone());
                async move { client.unary(script.request(request(1, 20))).await.map(drop) }
            });
            let open = async {
                rig.probe
                    .until("gated", |gated| gated.started >= 1_000)
                    .await;
                rig.probe.open("gate");
            };
            let (results, ()) = tokio::join!(join_all(calls), open);
            for result in results {
                result.unwrap_or_else(|status| panic!("{path:?}: {status:?}"));
            }
            rig.assert_lives().await;
        }
    })
    .await;
}
