//! What compression saves and costs on compressible traffic: telemetry as lines of JSON, echoed through
//! a forward tunnel. Client and server are one process over loopback, so both pay with the same cores.
//!
//! ```text
//! cargo run --release -p tunnel-bench --example compression
//! ```

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use tonic::body::Body;
use tonic::codec::CompressionEncoding::{self, Gzip, Zstd};
use tonic::service::Routes;
use tonic::transport::Server;
use tower::ServiceBuilder;
use tunnel_client::ForwardTunnel;
use tunnel_conformance::client::run;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::proto::{Request, Script};
use tunnel_conformance::service::{TestServer, scripted_with};
use tunnel_conformance::{Kind, Probe, TcpServer, TestChannel};
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

/// How long each row runs.
const TIME: Duration = Duration::from_secs(3);

/// How many calls run at once.
const AT_ONCE: usize = 4;

/// Where messages are compressed.
#[derive(Clone, Copy, Debug)]
enum Where {
    Nowhere,
    Outer(CompressionEncoding),
    Calls(CompressionEncoding),
}

impl Where {
    fn outer(self) -> Option<CompressionEncoding> {
        match self {
            Self::Outer(encoding) => Some(encoding),
            _ => None,
        }
    }

    fn calls(self) -> Option<CompressionEncoding> {
        match self {
            Self::Calls(encoding) => Some(encoding),
            _ => None,
        }
    }
}

/// About `size` bytes of telemetry.
fn telemetry(seed: u64, size: usize) -> Bytes {
    let mut text = String::new();
    let mut state = seed;
    while text.len() < size {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let (device, value) = ((state >> 40) % 100, (state >> 33) % 100_000);
        let _ = writeln!(
            text,
            r#"{{"device":"pump-{device:03}","seq":{seed},"temperature":{}.{:02},"pressure":{value},"status":"ok"}}"#,
            value % 90,
            value % 97,
        );
    }
    text.truncate(size);
    text.into()
}

/// Counts the bytes of a body's data.
fn counted(body: Body, count: Arc<AtomicUsize>) -> Body {
    struct Counted(Body, Arc<AtomicUsize>);
    impl http_body::Body for Counted {
        type Data = Bytes;
        type Error = tonic::Status;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, tonic::Status>>> {
            let next = std::pin::Pin::new(&mut self.0).poll_frame(cx);
            if let std::task::Poll::Ready(Some(Ok(frame))) = &next {
                let len = frame.data_ref().map_or(0, Bytes::len);
                self.1.fetch_add(len, Ordering::Relaxed);
            }
            next
        }
    }
    Body::new(Counted(body, count))
}

/// Measures one row: messages a second and bytes of the outer stream for each, both directions together.
async fn measure(size: usize, at: Where) -> (f64, f64) {
    let probe = Probe::default();
    let service = scripted_with(&probe, |server: TestServer| match at.calls() {
        Some(encoding) => server.accept_compressed(encoding).send_compressed(encoding),
        None => server,
    });
    let mut handler = TunnelServiceHandler::builder().add_service(service);
    if let Some(encoding) = at.outer() {
        handler = handler.send_compressed(encoding);
    }
    let routes = Routes::new(handler.build().service());
    let server = TcpServer::start(server_for_tunnels(Server::builder()), routes).await;

    let bytes = Arc::new(AtomicUsize::new(0));
    let (sent, received) = (bytes.clone(), bytes.clone());
    let channel = ServiceBuilder::new()
        .map_request(move |request: http::Request<Body>| {
            let sent = sent.clone();
            request.map(|body| counted(body, sent))
        })
        .map_response(move |response: http::Response<Body>| {
            let received = received.clone();
            response.map(|body| counted(body, received))
        })
        .service(server.channel().await);
    let mut tunnel = ForwardTunnel::new(channel);
    if let Some(encoding) = at.outer() {
        tunnel = tunnel.send_compressed(encoding);
    }
    let tunnel = tunnel.open().await.expect("the server accepts a tunnel");
    let mut client = TestServiceClient::new(TestChannel::new(tunnel));
    if let Some(encoding) = at.calls() {
        client = client.accept_compressed(encoding).send_compressed(encoding);
    }

    // Few messages in a call, so that large ones do not pile up.
    let messages = (1 << 20) / size.max(1 << 14);
    let script = Script::named("echo").echo_all();
    let requests: Vec<_> = (0..messages as u64)
        .map(|seed| Request {
            payload: telemetry(seed, size),
        })
        .collect();
    let done = AtomicUsize::new(0);
    let began = Instant::now();
    let callers = (0..AT_ONCE).map(|_| async {
        while began.elapsed() < TIME {
            let outcome = run(&client, Kind::Bidi, &script, requests.clone()).await;
            done.fetch_add(outcome.expect_success().len(), Ordering::Relaxed);
        }
    });
    join_all(callers).await;
    let done = done.load(Ordering::Relaxed) as f64;
    let rate = done / began.elapsed().as_secs_f64();
    (rate, bytes.load(Ordering::Relaxed) as f64 / done)
}

#[tokio::main]
async fn main() {
    println!("message  compression   messages/s   outer bytes for each, both ways");
    for size in [100, 1 << 10, 16 << 10, 256 << 10] {
        let all = [
            Where::Nowhere,
            Where::Outer(Gzip),
            Where::Outer(Zstd),
            Where::Calls(Gzip),
            Where::Calls(Zstd),
        ];
        for at in all {
            let (rate, bytes) = measure(size, at).await;
            let at = format!("{at:?}");
            println!("{size:>7}  {at:<12} {rate:>11.0}   {bytes:>9.0}");
        }
    }
}
