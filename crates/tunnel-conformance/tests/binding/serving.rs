//! Handlers: services, layers and shutdown.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Code, Status};
use tower::Service;
use tower::layer::layer_fn;
use tower::util::MapRequestLayer;
use tunnel_client::{Config, ForwardTunnel, TunnelError};
use tunnel_conformance::client::{run, unlimited};
use tunnel_conformance::payload::{assert_pattern, assert_sent, request};
use tunnel_conformance::proto::Script;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::service::{scripted, scripted_with_limit};
use tunnel_conformance::{Client, Kind, Probe, TestChannel};
use tunnel_server::TunnelServiceHandler;
use tunnel_tonic::outer::OPEN_TUNNEL_PATH;

use crate::support::body::{data, message, status};
use crate::support::raw_service::{
    answers, answers_with, outcome_of, raw_outcome, raw_request, response,
};
use crate::support::{Far, Graceful, assert_usable, client, eventually, guarded, one_request};

fn direct(channel: tonic::transport::Channel) -> Client {
    TestServiceClient::new(TestChannel::new(channel))
}

/// A service that answers with one message and OK.
fn says(text: &'static str) -> crate::support::raw_service::RawService {
    answers_with(move || vec![data(message(text.as_bytes())), status("0")])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_offered_directly_and_through_tunnels_at_once() {
    guarded(async {
        let probe = Probe::default();
        let service = scripted(&probe);
        let handler = TunnelServiceHandler::builder()
            .add_service(service.clone())
            .build();
        let routes = Routes::new(handler.service()).add_service(service);
        let server = Graceful::start(routes).await;
        // Both clients use one connection.
        let channel = server.channel().await;
        let tunnel = ForwardTunnel::new(channel.clone()).open().await;
        let tunnel = tunnel.expect("the far end accepts a tunnel");
        for client in [direct(channel), client(&tunnel)] {
            let script = Script::named("either way").receive_all().send(1, 50_000, 1);
            for kind in Kind::ALL {
                let outcome = run(&client, kind, &script, one_request()).await;
                assert_sent(outcome.expect_success(), 1, 50_000, 1);
            }
        }
        assert_eq!(probe.record("either way").finished, 8);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_only_direct_is_not_reached_through_a_tunnel_nor_the_other_way_round() {
    guarded(async {
        let handler = TunnelServiceHandler::builder()
            .add_service(says("tunnelled"))
            .build();
        let probe = Probe::default();
        let routes = Routes::new(handler.service()).add_service(scripted(&probe));
        let server = Graceful::start(routes).await;
        let channel = server.channel().await;
        let tunnel = ForwardTunnel::new(channel.clone()).open().await;
        let tunnel = tunnel.expect("the far end accepts a tunnel");
        let script = Script::named("here?");
        let outcome = run(&client(&tunnel), Kind::Unary, &script, one_request()).await;
        outcome.expect_failure(Code::Unimplemented);
        assert_usable(&direct(channel)).await;
        let (bytes, status) = raw_outcome(&tunnel, Body::empty()).await;
        assert_eq!((bytes, status.code()), (message(b"tunnelled"), Code::Ok));
    })
    .await;
}

/// The order does not matter. If two services have the same name, the one in the routes wins.
#[tokio::test(flavor = "multi_thread")]
async fn services_and_routes_are_added_together() {
    guarded(async {
        let probe = Probe::default();
        let service = scripted(&probe);
        let builder = TunnelServiceHandler::builder;
        let routes = |text| Routes::new(says(text));
        for (handler, said) in [
            (
                builder()
                    .add_service(service.clone())
                    .add_routes(routes("a")),
                "a",
            ),
            (
                builder()
                    .add_routes(routes("b"))
                    .add_service(service.clone()),
                "b",
            ),
            (
                builder()
                    .add_service(says("hidden"))
                    .add_service(service)
                    .add_routes(routes("c")),
                "c",
            ),
        ] {
            let tunnel = ForwardTunnel::new(handler.build().service()).open().await;
            let tunnel = tunnel.expect("the service accepts a tunnel");
            assert_usable(&client(&tunnel)).await;
            let (bytes, status) = raw_outcome(&tunnel, Body::empty()).await;
            assert_eq!(bytes, message(said.as_bytes()));
            assert_eq!(status.code(), Code::Ok);
            let mut request = crate::support::raw_service::raw_request(Body::empty());
            *request.uri_mut() = "/nobody.Service/Any".parse().expect("a path");
            let response = tunnel.clone().call(request).await.expect("an answer");
            let status = Status::from_header_map(response.headers()).expect("a status");
            assert_eq!(status.code(), Code::Unimplemented);
        }
    })
    .await;
}

type Notes = Arc<Mutex<Vec<&'static str>>>;

/// Records the name of each service that is called.
fn noting(
    name: &'static str,
    notes: &Notes,
) -> MapRequestLayer<impl Fn(http::Request<Body>) -> http::Request<Body> + Clone + use<>> {
    let notes = notes.clone();
    MapRequestLayer::new(move |request| {
        notes.lock().expect("not poisoned").push(name);
        request
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_layer_added_is_the_outermost_and_sees_tunnelled_calls_alone() {
    guarded(async {
        let notes = Notes::default();
        let probe = Probe::default();
        let handler = TunnelServiceHandler::builder()
            .layer(noting("first", &notes))
            .add_service(scripted(&probe))
            .layer(noting("second", &notes))
            .layer(noting("third", &notes))
            .build();
        let routes = Routes::new(handler.service()).add_service(scripted(&probe));
        let server = Graceful::start(routes).await;
        let channel = server.channel().await;
        let tunnel = ForwardTunnel::new(channel.clone()).open().await;
        let tunnel = tunnel.expect("the far end accepts a tunnel");
        assert_usable(&direct(channel)).await;
        assert!(notes.lock().expect("not poisoned").is_empty());
        assert_usable(&client(&tunnel)).await;
        assert_eq!(
            *notes.lock().expect("not poisoned"),
            ["first", "second", "third"]
        );
    })
    .await;
}

/// A tower service that is not ready at first and may fail.
#[derive(Clone)]
struct Moody {
    /// The number of polls until it is ready.
    not_ready: usize,
    error: Option<&'static str>,
}

impl Service<http::Request<Body>> for Moody {
    type Response = http::Response<Body>;
    type Error = tower::BoxError;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        match self.not_ready.checked_sub(1) {
            None => Poll::Ready(Ok(())),
            Some(left) => {
                self.not_ready = left;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        assert_eq!(self.not_ready, 0, "called only when ready");
        std::future::ready(match self.error {
            None => Ok(Status::ok("").into_http()),
            Some("status") => Err(Status::data_loss("of a layer").into()),
            Some(other) => Err(other.into()),
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_s_service_is_waited_for_and_its_errors_are_statuses() {
    guarded(async {
        for (error, code) in [
            (None, Code::Ok),
            (Some("status"), Code::DataLoss),
            (Some("something else"), Code::Unknown),
        ] {
            let moody = Moody {
                not_ready: 3,
                error,
            };
            let handler = TunnelServiceHandler::builder()
                .layer(layer_fn(move |_: Routes| moody.clone()))
                .build();
            let tunnel = ForwardTunnel::new(handler.service()).open().await;
            let tunnel = tunnel.expect("the service accepts a tunnel");
            for _ in 0..2 {
                let (_, status) = raw_outcome(&tunnel, Body::empty()).await;
                assert_eq!(status.code(), code, "{status:?}");
            }
        }
    })
    .await;
}

/// gRPC defines the mapping from HTTP statuses.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_grpc_has_the_code_of_its_http_status() {
    guarded(async {
        for (http, code) in [
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (404, Code::Unimplemented),
            (503, Code::Unavailable),
            (500, Code::Unknown),
        ] {
            let service = answers(move |_| async move {
                let mut page = response(Body::new("Who are you?".to_owned()));
                *page.status_mut() = http::StatusCode::from_u16(http).expect("legal");
                page.headers_mut()
                    .insert("x-who", "a proxy".parse().expect("legal"));
                page
            });
            let handler = TunnelServiceHandler::builder().add_service(service).build();
            let tunnel = ForwardTunnel::new(handler.service()).open().await;
            let tunnel = tunnel.expect("the service accepts a tunnel");
            let (bytes, status) = raw_outcome(&tunnel, Body::empty()).await;
            assert_eq!((bytes.len(), status.code()), (0, code), "{status:?}");
            assert!(status.message().contains(&http.to_string()), "{status:?}");
            assert_eq!(status.metadata().get("x-who").expect("kept"), "a proxy");
        }
    })
    .await;
}

/// Trap 17: tonic's own shutdown waits for open tunnels forever.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_an_open_tunnel_shuts_down_once_it_was_drained() {
    guarded(async {
        let probe = Probe::default();
        let handler = TunnelServiceHandler::builder()
            .add_service(scripted(&probe))
            .build();
        let server = Graceful::start(Routes::new(handler.service())).await;
        let idle = ForwardTunnel::new(server.channel().await).open().await;
        let idle = idle.expect("the far end accepts a tunnel");
        let busy = ForwardTunnel::new(server.channel().await).open().await;
        let busy = busy.expect("the far end accepts a tunnel");
        let call = {
            let client = client(&busy);
            tokio::spawn(async move {
                let script = Script::named("busy")
                    .receive_all()
                    .wait("on")
                    .send(1, 10, 1);
                run(&client, Kind::Bidi, &script, one_request()).await
            })
        };
        probe.started("busy").await;
        let draining = handler.clone();
        let drained = tokio::spawn(async move { draining.drain(Duration::from_secs(3600)).await });
        idle.ended().await;
        let refused = ForwardTunnel::new(server.channel().await).open().await;
        let Err(TunnelError::Refused(status)) = refused else {
            panic!("new tunnels are refused, not {refused:?}");
        };
        assert_eq!(status.code(), Code::Unavailable);
        assert!(!drained.is_finished());
        probe.open("on");
        assert_sent(call.await.expect("no panic").expect_success(), 1, 10, 1);
        drained.await.expect("no panic");
        assert!(handler.tunnels().is_empty());
        server.stop();
        // The channels of the tunnels still exist.
        server.ended().await;
        drop((idle, busy));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_calls_that_outlast_it() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = far.tunnel().await;
        let client = client(&tunnel);
        let calls = tokio::spawn(async move {
            let script = Script::named("too long").receive_all().pend();
            let script = &script;
            let calls = Kind::ALL.map(|kind| {
                let client = &client;
                async move { run(client, kind, script, one_request()).await }
            });
            futures::future::join_all(calls).await
        });
        far.probe
            .until("too long", |record| record.received == 4)
            .await;
        far.handler.drain(Duration::from_millis(10)).await;
        assert!(far.handler.tunnels().is_empty());
        for outcome in calls.await.expect("no panic") {
            outcome.expect_failure(Code::Unavailable);
        }
        far.probe
            .until("too long", |record| record.dropped == 4)
            .await;
    })
    .await;
}

/// A server that sends a GOAWAY keeps its open tunnels, and they accept new calls.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_without_a_drain_keeps_its_tunnels() {
    guarded(async {
        let probe = Probe::default();
        let handler = TunnelServiceHandler::builder()
            .add_service(scripted(&probe))
            .build();
        let server = Graceful::start(Routes::new(handler.service())).await;
        let channel = server.channel().await;
        let tunnel = ForwardTunnel::new(channel.clone()).open().await;
        let tunnel = tunnel.expect("the far end accepts a tunnel");
        server.stop();
        // The GOAWAY has arrived when no new tunnel can be opened.
        while ForwardTunnel::new(channel.clone()).open().await.is_ok() {}
        assert_usable(&client(&tunnel)).await;
        tunnel.close().await;
        server.ended().await;
        assert!(handler.tunnels().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_handler_serves_several_servers() {
    guarded(async {
        let probe = Probe::default();
        let handler = TunnelServiceHandler::builder()
            .add_service(scripted(&probe))
            .build();
        let mut tunnels = Vec::new();
        for _ in 0..2 {
            let server = Graceful::start(Routes::new(handler.service())).await;
            let tunnel = ForwardTunnel::new(server.channel().await).open().await;
            tunnels.push((tunnel.expect("it opens"), server));
        }
        assert_eq!(handler.tunnels().len(), 2);
        assert_eq!(handler.stats().len(), 2);
        for (tunnel, _) in &tunnels {
            assert_usable(&client(tunnel)).await;
        }
        let totals = handler
            .stats()
            .into_iter()
            .map(|(_, stats)| stats.streams_total);
        assert_eq!(totals.collect::<Vec<_>>(), [1, 1]);
        tunnels.pop();
        eventually(|| handler.tunnels().len() == 1).await;
    })
    .await;
}

/// With the limits raised at both ends and in tonic's client and server, a message can be this
/// large.
#[tokio::test(flavor = "multi_thread")]
async fn with_raised_limits_a_message_of_64_mib_travels_both_ways() {
    const SIZE: usize = 64 << 20;
    guarded(async {
        let config = Config::builder().max_message_size(SIZE + 100).build();
        let config = config.expect("valid");
        let probe = Probe::default();
        let handler = TunnelServiceHandler::builder()
            .add_service(scripted_with_limit(&probe, SIZE + 100))
            .config(config.clone())
            .build();
        let server = Graceful::start_with(Server::builder(), Routes::new(handler.service())).await;
        let opening = ForwardTunnel::new(server.channel().await).config(config);
        let tunnel = opening.open().await.expect("the far end accepts a tunnel");
        let client = unlimited(TestChannel::new(tunnel));
        let script = Script::named("large").echo_all();
        let outcome = run(&client, Kind::Unary, &script, vec![request(5, SIZE)]).await;
        assert_pattern(&outcome.expect_success()[0].payload, 5, SIZE);
    })
    .await;
}

/// A request that is not gRPC opens no tunnel.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_not_grpc_are_answered_with_415() {
    guarded(async {
        let handler = TunnelServiceHandler::builder().build();
        let ask = async |method: http::Method, kind: Option<&'static str>| {
            let mut request = http::Request::new(Body::empty());
            *request.method_mut() = method;
            *request.uri_mut() = http::Uri::from_static(OPEN_TUNNEL_PATH);
            if let Some(kind) = kind {
                let kind = http::HeaderValue::from_static(kind);
                request.headers_mut().insert("content-type", kind);
            }
            let response = handler.service().call(request).await;
            response.expect("infallible").status()
        };
        for kind in [
            None,
            Some("application/json"),
            Some("application/grpc-web"),
            Some("application/grpc-web+proto"),
            Some("application/grpcx"),
        ] {
            for method in [http::Method::GET, http::Method::POST] {
                let status = ask(method, kind).await;
                assert_eq!(status, http::StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind:?}");
            }
        }
        assert!(handler.tunnels().is_empty());
        for kind in ["application/grpc", "application/grpc+proto"] {
            let status = ask(http::Method::POST, Some(kind)).await;
            assert_eq!(status, http::StatusCode::OK);
        }
    })
    .await;
}

/// The handler forwards its call with plain tonic, which reports a deadline as CANCELLED.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_ends_a_call_at_a_plain_hop_is_deadline_exceeded() {
    guarded(async {
        let probe = Probe::default();
        let behind = answers(|_| std::future::pending());
        let behind = Graceful::start(Routes::new(behind).add_service(scripted(&probe))).await;
        let endpoint =
            tonic::transport::Endpoint::from_shared(format!("http://{}", behind.address));
        let hop = endpoint.expect("legal").timeout(Duration::from_millis(1));
        let hop = hop.connect_lazy();
        let forwards = answers(move |request| {
            let mut hop = hop.clone();
            async move {
                let ready = std::future::poll_fn(|cx| hop.poll_ready(cx)).await;
                ready.expect("it connects");
                match hop.call(request).await {
                    Ok(response) => response.map(Body::new),
                    Err(error) => Status::from_error(error.into()).into_http(),
                }
            }
        });
        let far = Far::start_with(|builder| builder.add_service(forwards).build()).await;
        let tunnel = far.tunnel().await;
        let (_, status) = raw_outcome(&tunnel, Body::empty()).await;
        assert_eq!(status.code(), Code::Cancelled, "as it came: {status:?}");
        let mut request = raw_request(Body::empty());
        let timeout = http::HeaderValue::from_static("1H");
        request.headers_mut().insert("grpc-timeout", timeout);
        let (_, status) = outcome_of(&tunnel, request).await;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    })
    .await;
}
