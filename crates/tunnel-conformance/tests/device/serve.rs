//! A single tunnel: its services, its channel and its end.

use std::time::Duration;

use tonic::service::{InterceptorLayer, interceptor::InterceptedService};
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use tunnel_client::{
    ConnectionError, EndReason, ForwardTunnel, Gateway, ReverseTunnelServer, TunnelError,
    endpoint_for_tunnels,
};
use tunnel_conformance::client::run;
use tunnel_conformance::payload::request;
use tunnel_conformance::proto::Script;
use tunnel_conformance::service::Mark;
use tunnel_conformance::{Kind, TcpServer};
use tunnel_server::{AcceptedTunnel, AffinityKey, Opening, TunnelServiceHandler};

use crate::support::{LongCall, NEVER, TestGateway, assert_usable, device, eventually, guarded};

/// Serves one tunnel while `end` makes the gateway end it. Returns the reason.
async fn served_until(gateway: &TestGateway, end: impl AsyncFnOnce(AcceptedTunnel)) -> EndReason {
    let (builder, _) = device(gateway.endpoint());
    let (reason, ()) = tokio::join!(builder.serve(), async {
        let tunnel = gateway.has(1).await.remove(0);
        end(tunnel).await;
    });
    reason.expect("the gateway accepts a tunnel")
}

/// Covers a drain with a call in flight and a drain without calls.
#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_its_gateway_drains_ends_cleanly_after_its_calls() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let (builder, probe) = device(gateway.endpoint());
        for busy in [false, true] {
            let (reason, ()) = tokio::join!(builder.clone().serve(), async {
                let tunnel = gateway.has(1).await.remove(0);
                let calling = async {
                    let call = LongCall::begin(&gateway.client(), &probe, "in flight").await;
                    gateway.has(0).await;
                    call.finish().await.expect_success();
                };
                let draining = async {
                    if busy {
                        probe.started("in flight").await;
                    }
                    tunnel.drain(NEVER).await
                };
                if busy {
                    tokio::join!(draining, calling);
                } else {
                    draining.await;
                }
            });
            let reason = reason.expect("it was open");
            let in_order = matches!(reason, EndReason::PeerDrained | EndReason::PeerClosed);
            assert!(in_order, "{reason:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_its_gateway_kicks_ends_with_the_gateway_s_reason() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let reason = served_until(&gateway, async |tunnel| {
            tunnel.close_with(Status::permission_denied("revoked"));
        });
        let EndReason::Error(ConnectionError::EndedByPeer(status)) = reason.await else {
            panic!("the gateway said why");
        };
        assert_eq!(status.code as i32, Code::PermissionDenied as i32);
        assert_eq!(status.message, "revoked");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_its_gateway_closes_ends_as_closed_by_the_peer() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let reason = served_until(&gateway, async |tunnel| tunnel.close_with(Status::ok("")));
        assert_eq!(reason.await, EndReason::PeerClosed);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_whose_gateway_dies_ends_as_lost() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let reason = served_until(&gateway, async |_| gateway.server.kill());
        let reason = reason.await;
        assert!(
            matches!(reason, EndReason::Error(ConnectionError::TransportLost(_))),
            "{reason:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_reason_tells_that_this_end_drained_or_closed_the_tunnel() {
    guarded(async {
        let gateway = TestGateway::start().await;
        for (drain, wanted) in [(true, EndReason::Drained), (false, EndReason::Closed)] {
            let server = device(gateway.endpoint()).0.build();
            let handle = server.handle();
            let (reason, ()) = tokio::join!(server.serve(), async {
                gateway.has(1).await;
                if drain {
                    handle.drain(Duration::from_secs(60)).await;
                } else {
                    handle.close().await;
                }
            });
            assert_eq!(reason.expect("it was open"), wanted);
            // Serving again has the same result.
            let again = server.serve().await;
            let Err(TunnelError::Ended(reason)) = again else {
                panic!("a server that was stopped opens no tunnel: {again:?}");
            };
            assert_eq!(reason, wanted);
            gateway.is_left().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_refuses_is_an_error_with_its_status() {
    guarded(async {
        let gateway = TestGateway::start_with(|builder| {
            builder.admit(|_| async { Err(Status::unauthenticated("who are you?")) })
        });
        let error = device(gateway.await.endpoint()).0.serve().await;
        let Err(TunnelError::Refused(status)) = error else {
            panic!("it was refused: {error:?}");
        };
        assert_eq!(status.code(), Code::Unauthenticated);
        assert_eq!(status.message(), "who are you?");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_not_there_is_an_error_of_the_channel() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let endpoint = gateway.endpoint();
        drop(gateway);
        let error = device(endpoint).0.serve().await;
        assert!(matches!(error, Err(TunnelError::Channel(_))), "{error:?}");
    })
    .await;
}

/// Covers a gateway that does not answer and a connection that is never made.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_does_not_answer_is_given_up() {
    guarded(async {
        let silent = TestGateway::start_with(|b| b.admit(|_| std::future::pending())).await;
        let nowhere = Gateway::connect_with("nowhere", || {
            std::future::pending::<Result<tonic::transport::Channel, Status>>()
        });
        for gateway in [Gateway::from(silent.endpoint()), nowhere] {
            let timeout = Duration::from_millis(20);
            let error = device(gateway).0.open_timeout(timeout).serve().await;
            assert!(
                matches!(error, Err(TunnelError::Timeout(after)) if after == timeout),
                "{error:?}"
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_layers_and_metadata_arrive() {
    guarded(async {
        let gateway = TestGateway::start_with(|builder| {
            builder.affinity_key(|o: &Opening| o.metadata_str("device").map(AffinityKey::from))
        })
        .await;
        let mark = |mut request: Request<()>| {
            request.extensions_mut().insert(Mark("layer".into()));
            Ok::<_, Status>(request)
        };
        let (builder, _) = device(gateway.endpoint());
        let mut metadata = tonic::metadata::MetadataMap::new();
        metadata.insert("device", "17".parse().expect("legal"));
        let server = builder
            .layer(InterceptorLayer::new(mark))
            .metadata(metadata)
            .build();
        let serving = server.serve();
        let calling = async {
            let tunnel = gateway.has(1).await.remove(0);
            assert_eq!(tunnel.info().key(), Some(&AffinityKey::from("17")));
            let script = Script::named("seen").report();
            let sent = vec![request(1, 10)];
            let outcome = run(&gateway.client(), Kind::Unary, &script, sent).await;
            let report = &outcome.expect_success()[0];
            let marked = report.metadata.iter().any(|entry| entry.key == Mark::KEY);
            assert!(marked, "{report:?}");
        };
        tokio::select! {
            reason = serving => panic!("{reason:?}"),
            () = calling => {}
        }
    })
    .await;
}

/// A device accepts any kind of channel: connected, lazy, with an interceptor, or from a connect
/// function.
#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_goes_over_a_channel_of_any_kind() {
    guarded(async {
        let gateway = TestGateway::start_with(|builder| {
            builder.affinity_key(|o: &Opening| o.metadata_str("token").map(AffinityKey::from))
        })
        .await;
        let add_token = |mut request: Request<()>| {
            let token = "t".parse().expect("legal");
            request.metadata_mut().insert("token", token);
            Ok::<_, Status>(request)
        };
        let endpoint = endpoint_for_tunnels(gateway.endpoint());
        let channel = endpoint.connect().await.expect("it is there");
        let with_interceptor = InterceptedService::new(channel.clone(), add_token);
        for (kind, key) in [
            (Gateway::from(channel), None),
            (Gateway::from(endpoint.connect_lazy()), None),
            (Gateway::over(with_interceptor), Some("t")),
            (
                Gateway::connect_with("mine", move || {
                    let endpoint = endpoint.clone();
                    async move { endpoint.connect().await }
                }),
                None,
            ),
        ] {
            let (builder, _) = device(kind);
            let calling = async {
                let tunnel = gateway.has(1).await.remove(0);
                assert_eq!(tunnel.info().key().map(AffinityKey::as_str), key);
                assert_usable(&gateway.client()).await;
            };
            tokio::select! {
                reason = builder.serve() => panic!("{reason:?}"),
                () = calling => {}
            }
            gateway.is_left().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reverse_tunnel_inside_a_forward_tunnel_serves_and_ends() {
    guarded(async {
        // The service inside the tunnel accepts tunnels itself.
        let inner = TunnelServiceHandler::builder().build();
        let outer =
            TestGateway::start_with(|b| b.add_service(inner.service()).reverse_tunnels(false))
                .await;
        let channel = outer.server.channel().await;
        let tunnel = ForwardTunnel::new(channel).open().await.expect("it opens");
        let (builder, probe) = device(Gateway::over(tunnel.clone()));
        let server = builder.build();
        let serving = server.serve();
        let calling = async {
            let channel = inner.as_channel();
            eventually(|| channel.is_ready()).await;
            let one = channel.tunnels().remove(0);
            let client = crate::support::client_of(&one);
            assert_usable(&client).await;
            let call = LongCall::begin(&client, &probe, "cut").await;
            tunnel.close().await;
            call.outcome().await.expect_failure(Code::Unavailable);
        };
        let (reason, ()) = tokio::join!(serving, calling);
        let reason = reason.expect("it was open");
        assert!(matches!(reason, EndReason::Error(_)), "{reason:?}");
        eventually(|| inner.tunnels().is_empty()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_serves_a_single_tunnel_shows_it_as_a_link() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let server = device(gateway.endpoint()).0.build();
        let handle = server.handle();
        assert!(handle.links().is_empty());
        assert!(handle.tunnels().is_empty());
        let serving = server.serve();
        let looking = async {
            assert_eq!(handle.all_connected().await, Ok(()));
            assert_eq!(handle.tunnels().len(), 1);
            assert_eq!(handle.stats()[0].0, handle.tunnels()[0].id());
            assert_eq!(handle.links().len(), 1);
        };
        tokio::select! {
            reason = serving => panic!("{reason:?}"),
            () = looking => {}
        }
        assert!(handle.links().is_empty());
    })
    .await;
}

/// Covers a server whose answer is not gRPC.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_accepts_no_reverse_tunnels_refuses() {
    guarded(async {
        let gateway = TestGateway::start_with(|b| b.reverse_tunnels(false)).await;
        let other = TcpServer::start(
            tonic::transport::Server::builder(),
            tonic::service::Routes::default(),
        )
        .await;
        for endpoint in [gateway.endpoint(), other.endpoint()] {
            let error = ReverseTunnelServer::builder(endpoint).serve().await;
            let Err(TunnelError::Refused(status)) = error else {
                panic!("it was refused: {error:?}");
            };
            assert_eq!(status.code(), Code::Unimplemented);
        }
    })
    .await;
}

#[test]
fn a_builder_that_is_built_twice_makes_two_servers_and_shows_no_secret() {
    let mut metadata = tonic::metadata::MetadataMap::new();
    metadata.insert("authorization", "s3cret".parse().expect("legal"));
    let endpoint = Endpoint::from_static("http://user:s3cret@gateway");
    let builder = device(endpoint).0.metadata(metadata);
    let (one, another) = (builder.clone().build(), builder.build());
    let shown = format!("{one:?}{another:?}{:?}", one.handle());
    assert!(!shown.contains("s3cret"), "{shown}");
}

/// The device's builder uses the same router as the server's builder.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_has_a_fallback_and_keeps_that_of_routes_it_is_given() {
    guarded(async {
        let answers = |name: &'static str| {
            tower::service_fn(move |_: http::Request<tonic::body::Body>| async move {
                let status = Status::not_found(name);
                Ok::<_, std::convert::Infallible>(status.into_http::<tonic::body::Body>())
            })
        };
        let mut given = tunnel_tonic::Services::default();
        given.set_fallback(answers("of the routes"));
        let given = given.into_routes();
        for (own, expected) in [(false, "of the routes"), (true, "of its own")] {
            let gateway = TestGateway::start().await;
            let builder = ReverseTunnelServer::builder(gateway.endpoint());
            let mut builder = builder.add_routes(given.clone());
            if own {
                builder = builder.fallback(answers("of its own"));
            }
            let _device = crate::support::Running::start(builder.build());
            gateway.has(1).await;
            let script = Script::named("unknown").echo_all();
            let sent = vec![request(1, 1)];
            let outcome = run(&gateway.client(), Kind::Unary, &script, sent).await;
            assert_eq!(outcome.expect_failure(Code::NotFound).message(), expected);
        }
    })
    .await;
}
