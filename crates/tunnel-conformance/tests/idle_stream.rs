//! The memory of an idle stream in a tunnel, at both ends together.
//!
//! A separate program, because it counts all live memory of the process. tonic's codec takes
//! four buffers of 8 KiB for such a stream, so the test does not use it. The request is a pending
//! body, and the service answers with another.

use std::alloc::System;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use cap::Cap;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;
use tunnel_client::{Config, ForwardTunnel, ResponseBody, TunnelChannel};
use tunnel_conformance::harness::guard;
use tunnel_server::TunnelServiceHandler;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// The number of streams. It is slightly more than tables with 16,384 places hold, so the tables
/// have just doubled: the worst case.
const STREAMS: usize = 14_500;

/// The streams to open before the measurement, so that one-time allocations are not counted.
const FIRST: usize = 500;

/// The most that one stream may take, in bytes. It takes 1,719: two entries of the state machine
/// (472 each), the handler's task (256), the bodies and their boxes, and its share of the tables.
const BOUND: usize = 2_048;

/// A body that is always pending.
struct Nothing;

impl http_body::Body for Nothing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Pending
    }
}

/// Answers each request with headers and the request's body, which thus lives as long as the
/// response.
#[derive(Clone)]
struct Idle;

impl NamedService for Idle {
    const NAME: &'static str = "idle.Service";
}

impl Service<http::Request<Body>> for Idle {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        ready(Ok(http::Response::new(request.into_body())))
    }
}

fn config() -> Config {
    let config = Config::builder()
        .max_concurrent_streams(2 * STREAMS)
        .overcommit(true);
    config.build().expect("valid")
}

/// Opens a stream. The response's headers are dropped: their memory belongs to the application.
async fn open(channel: &mut TunnelChannel) -> ResponseBody {
    let request = http::Request::post("/idle.Service/Call")
        .body(Body::new(Nothing))
        .expect("valid");
    channel.call(request).await.expect("headers").into_body()
}

/// The test has one thread, so that every run allocates the same.
#[tokio::test]
async fn an_idle_open_stream_takes_two_kilobytes_on_both_ends_together() {
    let test = async {
        let handler = TunnelServiceHandler::builder()
            .config(config())
            .add_service(Idle)
            .build();
        let tunnel = ForwardTunnel::new(handler.service()).config(config());
        let mut channel = tunnel.open().await.expect("accepted");
        let mut streams = Vec::with_capacity(STREAMS);
        while streams.len() < FIRST {
            streams.push(open(&mut channel).await);
        }
        let before = MEMORY.allocated();
        while streams.len() < STREAMS {
            streams.push(open(&mut channel).await);
        }
        let each = (MEMORY.allocated() - before) / (STREAMS - FIRST);
        println!("an idle open stream takes {each} bytes, both ends together");
        assert_eq!(channel.kept_calls(), STREAMS);
        assert!(each <= BOUND, "{each} bytes");
        // The streams leave nothing behind.
        drop(streams);
        while channel.kept_calls() > 0 {
            tokio::task::yield_now().await;
        }
    };
    guard("idle streams", test).await;
}
