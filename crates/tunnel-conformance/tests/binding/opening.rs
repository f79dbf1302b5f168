//! How tunnels open, and how opening fails.

use std::time::Duration;

use futures::future::poll_immediate;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tonic::body::Body;
use tonic::metadata::MetadataValue;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request, Status};
use tunnel_client::{
    Config, ConnectionError, EndReason, ForwardTunnel, Report, TransportCause, TunnelError,
};
use tunnel_conformance::metadata::every_byte;
use tunnel_conformance::service::scripted;
use tunnel_conformance::{Probe, TcpServer};

use crate::support::body::{Pieces, read_all};
use crate::support::peer::{Heard, RawServer, raw_service};
use crate::support::{Far, assert_usable, client, eventually, guarded};

fn refused(error: &TunnelError) -> &Status {
    match error {
        TunnelError::Refused(status) => status,
        other => panic!("the far end should refuse, not {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_is_a_channel_error_that_says_so() {
    guarded(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let address = listener.and_then(|l| l.local_addr()).expect("a free port");
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let channel = endpoint.expect("valid").connect_lazy();
        let error = ForwardTunnel::new(channel).open().await;
        let error = error.expect_err("nobody listens");
        assert!(matches!(error, TunnelError::Channel(_)), "{error:?}");
        assert_eq!(error.to_string(), "the channel for the tunnel failed");
        let cause = error.transport_error().map(|error| error.cause());
        assert_eq!(cause, Some(TransportCause::Io));
        let text = Report(&error).to_string().to_lowercase();
        assert!(text.contains("connection refused"), "{text}");
        assert!(!text.contains("hyper::"), "{text}");
        assert_eq!(Status::from(error).code(), Code::Unavailable);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tunnels_refuses_as_unimplemented() {
    guarded(async {
        let routes = Routes::new(scripted(&Probe::default()));
        let server = TcpServer::start(Server::builder(), routes).await;
        let error = ForwardTunnel::new(server.channel().await).open().await;
        let error = error.expect_err("there are no tunnels");
        assert_eq!(refused(&error).code(), Code::Unimplemented);
        assert_eq!(Status::from(error).code(), Code::Unimplemented);
    })
    .await;
}

/// The opening leaves nothing behind on either side.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_is_given_up() {
    guarded(async {
        let mut server = RawServer::start().await;
        // The timeout doubles until the request reaches the server, even on a busy machine.
        let mut timeout = Duration::from_millis(20);
        let request = loop {
            let opening = ForwardTunnel::new(server.server.channel().await);
            let error = opening.open_timeout(timeout).open().await;
            let error = error.expect_err("nobody answers");
            assert!(matches!(error, TunnelError::Timeout(_)), "{error:?}");
            assert!(
                error.to_string().contains(&format!("{timeout:?}")),
                "{error}"
            );
            assert_eq!(Status::from(error).code(), Code::DeadlineExceeded);
            if let Some(opening) = server.opening_so_far() {
                break opening.request;
            }
            timeout *= 2;
        };
        let (bytes, _) = read_all(request.into_body()).await;
        assert_eq!(bytes, [], "a caller sends nothing before settings");
        eventually(|| Handle::current().metrics().num_alive_tasks() == 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opening_that_is_dropped_before_the_answer_leaves_nothing() {
    guarded(async {
        let mut server = RawServer::start().await;
        let mut opening = Box::pin(ForwardTunnel::new(server.server.channel().await).open());
        let request = tokio::select! {
            opening = server.opening() => opening.request,
            _ = &mut opening => panic!("nobody has answered"),
        };
        drop(opening);
        let _ = read_all(request.into_body()).await;
        eventually(|| Handle::current().metrics().num_alive_tasks() == 0).await;
    })
    .await;
}

/// The request also ends if the transport keeps it and does not notice the drop.
#[tokio::test]
async fn the_request_of_an_opening_ends_when_it_is_dropped_at_any_stage() {
    guarded(async {
        let (service, mut openings) = raw_service();
        let mut opening = Box::pin(ForwardTunnel::new(service.clone()).open());
        assert!(poll_immediate(&mut opening).await.is_none());
        let waiting = openings.recv().await.expect("an opening");
        drop(opening);
        let (bytes, end) = read_all(waiting.request.into_body()).await;
        assert_eq!((bytes, end.is_ok()), (Vec::new(), true));

        let mut opening = Box::pin(ForwardTunnel::new(service.clone()).open());
        assert!(poll_immediate(&mut opening).await.is_none());
        let mut handler = openings.recv().await.expect("an opening").accept(true);
        // Receives the response headers and waits for settings.
        assert!(poll_immediate(&mut opening).await.is_none());
        drop(opening);
        assert!(matches!(handler.hear().await, Heard::End));
        handler.end(&Status::ok(""));
        drop(handler);
        eventually(|| Handle::current().metrics().num_alive_tasks() == 0).await;

        let mut opening = Box::pin(ForwardTunnel::new(service).open());
        assert!(poll_immediate(&mut opening).await.is_none());
        let mut refusing = openings.recv().await.expect("an opening");
        let request = std::mem::take(&mut refusing.request);
        refusing.respond(Status::unavailable("no").into_http());
        opening.await.expect_err("a refusal");
        let (bytes, end) = read_all(request.into_body()).await;
        assert_eq!((bytes, end.is_ok()), (Vec::new(), true));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_never_come_end_the_opening() {
    guarded(async {
        let mut server = RawServer::start().await;
        let timeout = Duration::from_millis(20);
        let config = Config::builder().settings_timeout(timeout).build();
        let opening = ForwardTunnel::new(server.server.channel().await);
        let opening = tokio::spawn(opening.config(config.expect("valid")).open());
        let mut handler = server.opening().await.accept(true);
        let error = opening.await.expect("no panic").expect_err("no settings");
        let TunnelError::Ended(EndReason::Error(ConnectionError::SettingsTimeout)) = error else {
            panic!("expected a settings timeout, not {error:?}");
        };
        assert!(matches!(
            handler.expect_end().await,
            Heard::Broken(_) | Heard::End
        ));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_while_a_tunnel_opens_is_an_error_of_the_channel() {
    guarded(async {
        let mut server = RawServer::start().await;
        let opening = tokio::spawn(ForwardTunnel::new(server.server.channel().await).open());
        let _opening = server.opening().await;
        server.server.kill();
        let error = opening
            .await
            .expect("no panic")
            .expect_err("the server died");
        assert!(matches!(error, TunnelError::Channel(_)), "{error:?}");
        assert_eq!(Status::from(error).code(), Code::Unavailable);
    })
    .await;
}

/// Authentication by tonic interceptors on both sides.
#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_opens_through_an_intercepted_channel_and_is_refused_without_its_token() {
    guarded(async {
        let far = Far::start().await;
        let check = |request: Request<()>| match request.metadata().get("authorization") {
            Some(token) if token == "Bearer let-me-in" => Ok(request),
            _ => Err(Status::with_details(
                Code::Unauthenticated,
                "who are you?",
                every_byte().into(),
            )),
        };
        let guarded = InterceptedService::new(far.handler.service(), check);
        let server = TcpServer::start(Server::builder(), Routes::new(guarded)).await;
        let channel = server.channel().await;
        let with_token = |token: &'static str| {
            move |mut request: Request<()>| {
                let token = MetadataValue::from_static(token);
                request.metadata_mut().insert("authorization", token);
                Ok(request)
            }
        };
        let intercepted = InterceptedService::new(channel.clone(), with_token("Bearer let-me-in"));
        let tunnel = ForwardTunnel::new(intercepted)
            .open()
            .await
            .expect("the token is valid");
        assert_usable(&client(&tunnel)).await;

        let intercepted = InterceptedService::new(channel.clone(), with_token("Bearer hello"));
        for error in [
            ForwardTunnel::new(channel).open().await,
            ForwardTunnel::new(intercepted).open().await,
        ] {
            let error = error.expect_err("the server refuses a call without a valid token");
            let status = refused(&error);
            assert_eq!(status.code(), Code::Unauthenticated);
            assert_eq!(status.message(), "who are you?");
            assert_eq!(status.details(), every_byte());
            assert!(error.to_string().contains("who are you?"), "{error}");
        }
        assert_eq!(far.handler.tunnels().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interceptor_of_this_end_that_refuses_is_a_refusal() {
    guarded(async {
        let far = Far::start().await;
        let refuse = |_: Request<()>| Err(Status::permission_denied("not today"));
        let channel = InterceptedService::new(far.server.channel().await, refuse);
        let error = ForwardTunnel::new(channel).open().await;
        let error = error.expect_err("the interceptor refuses");
        assert_eq!(refused(&error).code(), Code::PermissionDenied);
        assert!(far.handler.tunnels().is_empty());
    })
    .await;
}

/// Trap 11 while a tunnel opens: tonic itself would panic on this.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_with_malformed_details_is_a_refusal() {
    guarded(async {
        let mut server = RawServer::start().await;
        let opening = tokio::spawn(ForwardTunnel::new(server.server.channel().await).open());
        let response = http::Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "7")
            .header("grpc-message", "%FF no %zz")
            .header("grpc-status-details-bin", "!not base64!");
        let response = response.body(Body::empty()).expect("legal");
        server.opening().await.respond(response);
        let error = opening.await.expect("no panic").expect_err("a refusal");
        assert_eq!(refused(&error).code(), Code::PermissionDenied);
        assert_eq!(refused(&error).details(), b"");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_non_grpc_answer_is_distinguished_from_a_refusal() {
    guarded(async {
        let mut server = RawServer::start().await;
        for (status, content_type, code) in [
            (200, "text/html", Code::Unknown),
            (401, "text/html", Code::Unauthenticated),
            (404, "text/plain", Code::Unimplemented),
            (503, "text/html", Code::Unavailable),
        ] {
            let opening = tokio::spawn(ForwardTunnel::new(server.server.channel().await).open());
            let response = http::Response::builder()
                .status(status)
                .header("content-type", content_type)
                .body(Pieces::then_pending(Vec::new()));
            server.opening().await.respond(response.expect("legal"));
            let error = opening.await.expect("no panic").expect_err("a refusal");
            assert!(
                matches!(error, TunnelError::NotGrpc(s) if s == status),
                "{error}"
            );
            // The same code as with plain tonic.
            assert_eq!(Status::from(error).code(), code);
        }
    })
    .await;
}

/// A tunnel works over any tonic service and needs no network.
#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_opens_over_a_service_in_process() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = ForwardTunnel::new(far.handler.service()).open().await;
        let tunnel = tunnel.expect("the service accepts a tunnel");
        assert_usable(&client(&tunnel)).await;
        tunnel.close().await;
        far.no_tunnels().await;
    })
    .await;
}

/// A tunnel is a channel, so another tunnel can use it.
#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_opens_through_a_tunnel() {
    guarded(async {
        let inner = Far::start().await;
        let service = inner.handler.service();
        let outer = Far::start_with(|builder| builder.add_service(service).build()).await;
        let around = outer.tunnel().await;
        let within = ForwardTunnel::new(around.clone()).open().await;
        let within = within.expect("the far end accepts a tunnel in a tunnel");
        assert_usable(&client(&around)).await;
        assert_usable(&client(&within)).await;
        assert_eq!(inner.handler.tunnels().len(), 1);
        around.close().await;
        within.ended().await;
        inner.no_tunnels().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reverse_tunnels_are_unimplemented_where_the_server_was_told_so() {
    guarded(async {
        use tonic::client::GrpcService as _;
        let far = Far::start_with(|builder| builder.reverse_tunnels(false).build()).await;
        let mut channel = far.server.channel().await;
        for path in [
            "/grpctunnel.v1.TunnelService/OpenReverseTunnel",
            "/grpctunnel.v1.TunnelService/Nothing",
        ] {
            std::future::poll_fn(|cx| channel.poll_ready(cx))
                .await
                .expect("ready");
            let request = http::Request::post(path).header("content-type", "application/grpc");
            let request = request.body(Body::empty());
            let response = channel.call(request.expect("legal")).await;
            let response = response.expect("a response comes");
            let status = Status::from_header_map(response.headers()).expect("a status");
            assert_eq!(status.code(), Code::Unimplemented);
        }
    })
    .await;
}
