//! Compression of the outer stream. The suite runs over such a tunnel.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::HeaderMap;
use http_body_util::BodyExt as _;
use tonic::body::Body;
use tonic::codec::CompressionEncoding::{self, Deflate, Gzip, Zstd};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::{Service, ServiceBuilder};
use tunnel_client::{ForwardTunnel, TunnelError};
use tunnel_conformance::Kind;
use tunnel_conformance::client::run;
use tunnel_conformance::payload::{assert_sent, requests};
use tunnel_conformance::proto::Script;
use tunnel_core::ConnectionError;
use tunnel_tonic::outer::OPEN_TUNNEL_PATH;

use crate::support::body::message;
use crate::support::peer::{Heard, RawCaller};
use crate::support::{Far, assert_usable, client, eventually, guarded};

const ENCODINGS: [CompressionEncoding; 3] = [Gzip, Deflate, Zstd];

/// What an outer call had in its headers and bodies.
#[derive(Clone, Default)]
struct Seen {
    sent: Arc<AtomicUsize>,
    received: Arc<AtomicUsize>,
}

/// A channel to a server, whose headers a test may change.
fn watched(
    channel: Channel,
    seen: Seen,
    on_request: fn(&mut HeaderMap),
    on_response: fn(&mut HeaderMap),
) -> impl Service<
    http::Request<Body>,
    Response = http::Response<Body>,
    Error = tonic::transport::Error,
    Future: Send,
> {
    let Seen { sent, received } = seen;
    let counted = |body: Body, count: Arc<AtomicUsize>| {
        Body::new(body.map_frame(move |frame| {
            let len = frame.data_ref().map_or(0, bytes::Bytes::len);
            count.fetch_add(len, Ordering::Relaxed);
            frame
        }))
    };
    ServiceBuilder::new()
        .map_request(move |mut request: http::Request<Body>| {
            on_request(request.headers_mut());
            let count = sent.clone();
            request.map(|body| counted(body, count))
        })
        .map_response(move |mut response: http::Response<Body>| {
            on_response(response.headers_mut());
            let count = received.clone();
            response.map(|body| counted(body, count))
        })
        .service(channel)
}

fn unchanged(_: &mut HeaderMap) {}

async fn far_that_sends(encoding: Option<CompressionEncoding>) -> Far {
    Far::start_with(|builder| match encoding {
        Some(encoding) => builder.send_compressed(encoding).build(),
        None => builder.build(),
    })
    .await
}

/// Sends compressible messages of 100 KiB in both directions, and returns how many bytes were sent and
/// received in the outer stream.
async fn bytes_of(
    far: &Far,
    send: Option<CompressionEncoding>,
    on_request: fn(&mut HeaderMap),
) -> (usize, usize) {
    let seen = Seen::default();
    let channel = watched(
        far.server.channel().await,
        seen.clone(),
        on_request,
        unchanged,
    );
    let mut opening = ForwardTunnel::new(channel);
    if let Some(encoding) = send {
        opening = opening.send_compressed(encoding);
    }
    let tunnel = opening.open().await.expect("the far end accepts a tunnel");
    for _ in 0..3 {
        let script = Script::named("echo").echo_all();
        let sent = requests(1, 5, 100_000);
        let outcome = run(&client(&tunnel), Kind::Bidi, &script, sent).await;
        assert_sent(outcome.expect_success(), 5, 100_000, 1);
    }
    tunnel.close().await;
    let load = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    (load(&seen.sent), load(&seen.received))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_end_compresses_as_it_is_set_and_the_other_understands_it() {
    guarded(async {
        const PLAIN: usize = 15 * 100_000;
        for encoding in ENCODINGS {
            for (send, answer) in [(true, false), (false, true), (true, true)] {
                let far = far_that_sends(answer.then_some(encoding)).await;
                let send_with = send.then_some(encoding);
                let (sent, received) = bytes_of(&far, send_with, unchanged).await;
                assert_eq!(sent < PLAIN, send, "{encoding}: {sent}");
                assert_eq!(received < PLAIN, answer, "{encoding}: {received}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_does_not_compress_for_a_client_that_does_not_accept_it() {
    guarded(async {
        let far = far_that_sends(Some(Zstd)).await;
        let without: fn(&mut HeaderMap) = |headers| {
            headers.insert(
                "grpc-accept-encoding",
                "gzip,identity".parse().expect("legal"),
            );
        };
        let (_, received) = bytes_of(&far, None, without).await;
        assert!(received > 15 * 100_000, "{received}");
    })
    .await;
}

/// Opens a tunnel that must fail.
async fn refused(
    far: &Far,
    on_request: fn(&mut HeaderMap),
    on_response: fn(&mut HeaderMap),
) -> TunnelError {
    let channel = far.server.channel().await;
    let channel = watched(channel, Seen::default(), on_request, on_response);
    let opened = ForwardTunnel::new(channel).open().await;
    opened.expect_err("an unknown encoding")
}

fn snappy(headers: &mut HeaderMap) {
    headers.insert("grpc-encoding", "snappy".parse().expect("legal"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoding_that_the_far_end_does_not_accept_refuses_the_tunnel() {
    guarded(async {
        let far = Far::start().await;
        let TunnelError::Refused(status) = refused(&far, snappy, unchanged).await else {
            panic!("the far end refuses");
        };
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().contains("`snappy`"), "{status:?}");
        far.no_tunnels().await;

        let error = refused(&far, unchanged, snappy).await;
        let status = Status::from(error.clone());
        assert!(status.message().contains("`snappy`"), "{error:?}");
        far.no_tunnels().await;
    })
    .await;
}

/// Opens a tunnel by hand that says it is compressed.
async fn caller(far: &Far) -> RawCaller {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-encoding", "zstd".parse().expect("legal"));
    let channel = far.server.channel().await;
    let mut caller = RawCaller::dial(channel, OPEN_TUNNEL_PATH, headers, true).await;
    caller.expect_frame().await;
    caller
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_inflates_beyond_the_limit_ends_the_tunnel() {
    guarded(async {
        let far = Far::start().await;
        let bystander = far.tunnel().await;
        let bomb = zstd::encode_all(&vec![0; 100 << 20][..], 0).expect("to memory");
        for (word, bytes) in [
            ("when it is decompressed", &bomb[..]),
            ("cannot be decompressed", b"no zstd"),
        ] {
            let mut caller = caller(&far).await;
            let mut framed = message(bytes);
            framed[0] = 1;
            caller.say_bytes(framed);
            let Heard::Status(status) = caller.hear().await else {
                panic!("the tunnel ends");
            };
            assert_eq!(status.code(), Code::Internal, "{status:?}");
            assert!(status.message().contains(word), "{status:?}");
        }
        eventually(|| far.handler.tunnels().len() == 1).await;
        assert_usable(&client(&bystander)).await;
    })
    .await;
}

/// A server that sends a broken frame.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_names_the_broken_frame_of_its_server() {
    guarded(async {
        let far = far_that_sends(Some(Gzip)).await;
        let as_zstd: fn(&mut HeaderMap) = |headers| {
            headers.insert("grpc-encoding", "zstd".parse().expect("legal"));
        };
        let channel = far.server.channel().await;
        let channel = watched(channel, Seen::default(), unchanged, as_zstd);
        let tunnel = ForwardTunnel::new(channel).open().await;
        let tunnel = tunnel.expect("small frames are not compressed");
        let script = Script::named("large").receive_all().send(1, 10_000, 1);
        let outcome = run(&client(&tunnel), Kind::Unary, &script, requests(1, 1, 1)).await;
        outcome.expect_failure(Code::Unavailable);
        let reason = tunnel.ended().await;
        let tunnel_core::EndReason::Error(ConnectionError::Undecodable(error)) = reason else {
            panic!("a broken frame: {reason:?}");
        };
        assert!(error.to_string().contains("decompressed"), "{error}");
    })
    .await;
}
