//! Reconnecting after failures, refusals and ends of all kinds.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Status};
use tower::Service;
use tunnel_client::{Backoff, DownReason, EndReason, LinkState, LinkStatus, TunnelError};
use tunnel_conformance::{FaultProxy, TcpServer};
use tunnel_server::server_for_tunnels;

use crate::support::{
    LongCall, NEVER, Running, TestGateway, assert_usable, device, eventually, guarded,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_device_comes_back_when_its_gateway_died_and_another_took_its_address() {
    guarded(async {
        let first = TestGateway::start().await;
        let link = FaultProxy::to(first.server.address()).await;
        let (builder, probe) = device(link.endpoint());
        let device = Running::start(builder.build());
        first.has(1).await;
        let call = LongCall::begin(&first.client(), &probe, "cut").await;

        link.set_target(None);
        first.server.kill();
        call.outcome().await.expect_failure(Code::Unavailable);
        device
            .until(0, |status| {
                let error = status.last_down_reason();
                matches!(error, Some(DownReason::NotOpened(TunnelError::Channel(_))))
            })
            .await;
        let second = TestGateway::start().await;
        link.set_target(Some(second.server.address()));
        second.has(1).await;
        assert_usable(&second.client()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_starts_before_its_gateway_finds_it() {
    guarded(async {
        let link = FaultProxy::to(([127, 0, 0, 1], 1).into()).await;
        link.set_target(None);
        let device = Running::start(device(link.endpoint()).0.build());
        device.until(0, |status| status.attempts() > 3).await;
        let gateway = TestGateway::start().await;
        link.set_target(Some(gateway.server.address()));
        gateway.has(1).await;
        assert_eq!(device.handle.all_connected().await, Ok(()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lasting_refusal_is_reported_as_such_and_retried_slowly() {
    guarded(async {
        for code in [
            Code::Unauthenticated,
            Code::PermissionDenied,
            Code::InvalidArgument,
            Code::Unimplemented,
        ] {
            let gateway = TestGateway::start_with(|builder| {
                builder.admit(move |_| async move { Err(Status::new(code, "no")) })
            });
            let gateway = gateway.await;
            let (builder, _) = device(gateway.endpoint());
            let device = builder.backoff(Backoff::default().refused_cap(NEVER));
            let device = Running::start(device.build());
            let refused =
                |state: &LinkState| matches!(state, LinkState::BackingOff { refused: true, .. });
            let status = device.until(0, |status| refused(status.state())).await;
            let LinkState::BackingOff { until, .. } = status.state() else {
                unreachable!("{status:?}");
            };
            let wait = until.duration_since(Instant::now());
            assert!(wait > NEVER / 3 && wait <= NEVER, "{wait:?}");
            assert_eq!(status.attempts(), 1);
            let Some(DownReason::NotOpened(TunnelError::Refused(why))) = status.last_down_reason()
            else {
                panic!("{status:?}");
            };
            assert_eq!(why.code(), code);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_other_refusal_is_retried_as_a_failure() {
    guarded(async {
        for code in [Code::Unavailable, Code::ResourceExhausted, Code::Internal] {
            let gateway = TestGateway::start_with(|builder| {
                builder.admit(move |_| async move { Err(Status::new(code, "later")) })
            });
            let gateway = gateway.await;
            let (builder, _) = device(gateway.endpoint());
            let device = builder.backoff(Backoff::default().initial(NEVER).cap(NEVER));
            let device = Running::start(device.build());
            device
                .state(0, |state| {
                    matches!(state, LinkState::BackingOff { refused: false, .. })
                })
                .await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_device_connects_once_it_is_admitted() {
    guarded(async {
        let allowed = Arc::new(AtomicBool::new(false));
        let refused = Arc::new(AtomicUsize::new(0));
        let (may, times) = (allowed.clone(), refused.clone());
        let gateway = TestGateway::start_with(|builder| {
            builder.admit(move |_| {
                let answer = if may.load(Ordering::Relaxed) {
                    Ok(())
                } else {
                    times.fetch_add(1, Ordering::Relaxed);
                    Err(Status::permission_denied("not yet"))
                };
                async { answer }
            })
        })
        .await;
        let device = Running::start(device(gateway.endpoint()).0.build());
        eventually(|| refused.load(Ordering::Relaxed) >= 5).await;
        allowed.store(true, Ordering::Relaxed);
        gateway.has(1).await;
        assert_usable(&gateway.client()).await;
        assert_eq!(device.handle.connected().await, Ok(()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_kicked_comes_back_as_slowly_as_the_reason_says() {
    guarded(async {
        for (reason, slow) in [
            (Status::permission_denied("revoked"), true),
            (Status::aborted("replaced"), false),
        ] {
            let gateway = TestGateway::start().await;
            let (builder, _) = device(gateway.endpoint());
            let backoff = Backoff::default().healthy_after(Duration::ZERO);
            let backoff = if slow {
                backoff.refused_cap(NEVER)
            } else {
                backoff
                    .refused_cap(Duration::ZERO)
                    .initial(NEVER)
                    .cap(NEVER)
            };
            let device = Running::start(builder.backoff(backoff).build());
            let tunnel = gateway.has(1).await.remove(0);
            tunnel.close_with(reason);
            let status = device
                .until(0, |status| {
                    matches!(status.state(), LinkState::BackingOff { .. })
                })
                .await;
            assert!(
                matches!(status.state(), LinkState::BackingOff { refused, .. } if *refused == slow),
                "{status:?}"
            );
            assert!(matches!(
                status.last_down_reason(),
                Some(DownReason::Ended(EndReason::Error(_)))
            ));
        }
    })
    .await;
}

/// A proxy's answer while its gateway is unavailable, and a gateway's answer with a retry time.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_grpc_status_is_a_lasting_refusal_and_it_may_name_a_time() {
    guarded(async {
        for status in [404, 403, 401, 503] {
            let html = Answers(vec![("content-type", "text/html")], status);
            let error = error_of_first_attempt(html).await;
            assert!(!error.is_refusal(), "{error}");
            let DownReason::NotOpened(TunnelError::NotGrpc(code)) = error else {
                panic!("{error}");
            };
            assert_eq!(code, status);
        }
        let grpc = ("content-type", "application/grpc");
        let denied = Answers(vec![grpc, ("grpc-status", "7")], 200);
        assert!(error_of_first_attempt(denied).await.is_refusal());

        let pushback = ("grpc-retry-pushback-ms", "3600000");
        let busy = Answers(vec![grpc, ("grpc-status", "14"), pushback], 200);
        let server = TcpServer::start(server_for_tunnels(Server::builder()), Routes::new(busy));
        let server = server.await;
        let device = Running::start(device(server.endpoint()).0.build());
        let backing_off = |status: &LinkStatus| {
            matches!(status.state(), LinkState::BackingOff { refused: false, until, .. }
                if *until > Instant::now() + Duration::from_secs(1800))
        };
        device.until(0, backing_off).await;
    })
    .await;
}

/// The error of a device's first attempt at a server that answers like this.
async fn error_of_first_attempt(answers: Answers) -> DownReason {
    let server = TcpServer::start(server_for_tunnels(Server::builder()), Routes::new(answers));
    let server = server.await;
    let device = Running::start(device(server.endpoint()).0.build());
    let status = device
        .until(0, |status| status.last_down_reason().is_some())
        .await;
    status.last_down_reason().expect("there is one").clone()
}

/// A server that answers every opening with these headers and this HTTP status.
#[derive(Clone)]
struct Answers(Vec<(&'static str, &'static str)>, u16);

impl NamedService for Answers {
    const NAME: &'static str = "grpctunnel.v1.TunnelService";
}

impl Service<http::Request<Body>> for Answers {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let response = http::Response::builder().status(self.1);
        let response = self
            .0
            .iter()
            .fold(response, |r, (key, value)| r.header(*key, *value));
        ready(Ok(response.body(Body::empty()).expect("legal")))
    }
}

/// Each attempt makes a new connection. A broken connection is never reused.
#[tokio::test(flavor = "multi_thread")]
async fn each_tunnel_of_an_endpoint_has_a_connection_of_its_own() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let link = FaultProxy::to(gateway.server.address()).await;
        let device = Running::start(device(link.endpoint()).0.build());
        let mut tunnel = gateway.has(1).await.remove(0);
        for connections in 2..5 {
            tunnel.close_with(Status::aborted("again"));
            tunnel = gateway.has_another_than(&tunnel).await;
            assert_eq!(link.accepted(), connections);
        }
        // A connection that is no longer needed is closed.
        link.wait_open(1).await;
        drop(device);
    })
    .await;
}

/// Covers a lazy channel, which connects when it is called.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_reconnects_by_itself_is_called_again() {
    guarded(async {
        let first = TestGateway::start().await;
        let link = FaultProxy::to(first.server.address()).await;
        let device = Running::start(device(link.endpoint().connect_lazy()).0.build());
        first.has(1).await;
        let second = TestGateway::start().await;
        link.set_target(Some(second.server.address()));
        link.reset();
        second.has(1).await;
        assert_usable(&second.client()).await;
        drop(device);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_does_not_resolve_is_retried() {
    guarded(async {
        let nowhere = Endpoint::from_static("http://no-such-host.invalid:1");
        let device = Running::start(device(nowhere).0.build());
        let status = device.until(0, |status| status.attempts() > 2).await;
        assert_eq!(status.gateway(), "http://no-such-host.invalid:1");
    })
    .await;
}

/// The reason follows the answer at once, possibly before the device reads either.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_kicked_right_after_it_connects_sees_the_reason() {
    guarded(async {
        let routes = Routes::new(KicksAtOnce);
        let server = TcpServer::start(server_for_tunnels(Server::builder()), routes).await;
        for _ in 0..200 {
            let reason = device(server.endpoint()).0.serve().await;
            let reason = reason.expect("the tunnel was accepted");
            assert!(DownReason::Ended(reason.clone()).is_refusal(), "{reason}");
        }
    })
    .await;
}

/// A gateway that accepts each tunnel and ends it at once.
#[derive(Clone)]
struct KicksAtOnce;

impl NamedService for KicksAtOnce {
    const NAME: &'static str = "grpctunnel.v1.TunnelService";
}

impl Service<http::Request<Body>> for KicksAtOnce {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let mut trailers = http::HeaderMap::new();
        let revoked = Status::permission_denied("revoked");
        revoked.add_header(&mut trailers).expect("legal");
        let mut response = http::Response::new(Body::new(OnlyTrailers(Some(trailers))));
        let grpc = http::HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", grpc);
        ready(Ok(response))
    }
}

struct OnlyTrailers(Option<http::HeaderMap>);

impl http_body::Body for OnlyTrailers {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Status>>> {
        let trailers = self.0.take().map(http_body::Frame::trailers);
        Poll::Ready(trailers.map(Ok))
    }
}
