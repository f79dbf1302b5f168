//! Compressed messages at the edge of a tunnel whose far end does not carry them, as with other
//! libraries. The suite covers two ends that do.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::HeaderMap;
use tonic::body::Body;
use tonic::codec::CompressionEncoding::{self, Deflate, Gzip, Zstd};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::{ServiceBuilder, ServiceExt as _};
use tunnel_client::{Config, ForwardTunnel, TunnelChannel};
use tunnel_conformance::Kind;
use tunnel_conformance::client::run;
use tunnel_conformance::payload::{received, requests};
use tunnel_conformance::proto::Script;
use tunnel_core::COMPRESSED_MESSAGES_HEADER;

use crate::support::body::{Piece, Pieces, data, message, read_all, status};
use crate::support::raw_service::{RawService, answers, outcome_of, raw_request, response};
use crate::support::{Far, assert_usable, client, eventually, guarded};

const ENCODINGS: [CompressionEncoding; 3] = [Gzip, Deflate, Zstd];

/// The largest message, in bytes, at both ends.
const LIMIT: usize = 1 << 20;

fn config() -> Config {
    let config = Config::builder().max_message_size(LIMIT);
    config.build().expect("valid")
}

/// A tunnel of which each end believes that the other does not carry compressed messages.
async fn tunnel(far: &Far) -> TunnelChannel {
    let without = |headers: &mut HeaderMap| {
        headers.remove(COMPRESSED_MESSAGES_HEADER);
    };
    let channel = ServiceBuilder::new()
        .map_request(move |mut request: http::Request<Body>| {
            without(request.headers_mut());
            request
        })
        .map_response(move |mut response: http::Response<Body>| {
            without(response.headers_mut());
            response
        })
        .service::<Channel>(far.server.channel().await);
    let opening = ForwardTunnel::new(channel).config(config());
    opening.open().await.expect("the far end accepts a tunnel")
}

async fn far_with(service: RawService) -> (Far, TunnelChannel) {
    let build = |builder: tunnel_server::TunnelServiceHandlerBuilder| {
        builder.add_service(service).config(config()).build()
    };
    let far = Far::start_with(build).await;
    let tunnel = tunnel(&far).await;
    (far, tunnel)
}

fn compress(encoding: CompressionEncoding, plain: &[u8]) -> Vec<u8> {
    let level = Compression::default();
    let compressed = match encoding {
        Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(plain).and_then(|()| encoder.finish())
        }
        Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(plain).and_then(|()| encoder.finish())
        }
        _ => zstd::encode_all(plain, 0),
    };
    compressed.expect("to memory")
}

/// A compressed message with its prefix.
fn compressed(encoding: CompressionEncoding, plain: &[u8]) -> Vec<u8> {
    let mut framed = message(&compress(encoding, plain));
    framed[0] = 1;
    framed
}

/// A raw call with this encoding in its headers.
async fn call(tunnel: &TunnelChannel, encoding: &str, pieces: Vec<Piece>) -> (Vec<u8>, Status) {
    let mut request = raw_request(Pieces::all(pieces));
    let encoding = encoding.parse().expect("legal");
    request.headers_mut().insert("grpc-encoding", encoding);
    outcome_of(tunnel, request).await
}

/// Echoes the bytes of the request, which must have no encoding.
fn echoes() -> RawService {
    answers(|request| async {
        assert_eq!(request.headers().get("grpc-encoding"), None);
        assert_eq!(request.headers().get("grpc-accept-encoding"), None);
        let (bytes, end) = read_all(request.into_body()).await;
        match end {
            Ok(_) => response(Pieces::all(vec![data(bytes), status("0")])),
            Err(status) => status.into_http(),
        }
    })
}

/// Answers with this encoding in the headers, whatever the caller accepts.
fn answers_encoded(
    encoding: impl ToString,
    pieces: impl Fn() -> Vec<Piece> + Send + Sync + 'static,
) -> RawService {
    let encoding = encoding.to_string();
    answers(move |_| {
        let mut response = response(Pieces::all(pieces()));
        let encoding = encoding.parse().expect("legal");
        response.headers_mut().insert("grpc-encoding", encoding);
        std::future::ready(response)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_compresses_reaches_a_server_that_does_not_accept_it() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = tunnel(&far).await;
        for encoding in ENCODINGS {
            let client = client(&tunnel).send_compressed(encoding);
            for kind in Kind::ALL {
                let sent = requests(1, kind.requests(5), 70_000);
                let script = Script::named("up").receive_all().summarize();
                let outcome = run(&client, kind, &script, sent.clone()).await;
                assert_eq!(outcome.expect_success()[0].received, Some(received(&sent)));
            }
        }
        eventually(|| tunnel.kept_calls() == 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_with_and_without_compression_comes_out_plain_however_it_is_cut() {
    guarded(async {
        let (_far, tunnel) = far_with(echoes()).await;
        let plain = [&b""[..], b"one", &[7; 20_000], b"", b"two"];
        let expected: Vec<u8> = plain.iter().flat_map(|plain| message(plain)).collect();
        for encoding in ENCODINGS {
            let messages = plain.iter().enumerate().map(|(i, plain)| match i % 2 {
                0 => compressed(encoding, plain),
                _ => message(plain),
            });
            let body = messages.collect::<Vec<_>>().concat();
            for cut in [1, 4, 11, body.len()] {
                let pieces = body.chunks(cut).map(Bytes::copy_from_slice).map(data);
                let name = encoding.to_string();
                let (bytes, end) = call(&tunnel, &name, pieces.collect()).await;
                assert_eq!(end.code(), Code::Ok, "{end:?}");
                assert!(bytes == expected, "{encoding}, cut {cut}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_compresses_without_being_asked_is_understood() {
    guarded(async {
        for encoding in ENCODINGS {
            let pieces = move || {
                let first = compressed(encoding, b"first");
                vec![data(first), data(message(b"second")), status("0")]
            };
            let (_far, tunnel) = far_with(answers_encoded(encoding, pieces)).await;
            let response = tunnel.clone().oneshot(raw_request(Body::empty())).await;
            let (head, body) = response.expect("headers").into_parts();
            assert_eq!(head.headers.get("grpc-encoding"), None);
            let (bytes, end) = read_all(body).await;
            assert_eq!(bytes, [message(b"first"), message(b"second")].concat());
            let trailers = end.expect("a clean end").expect("trailers");
            assert_eq!(trailers["grpc-status"], "0");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_inflates_beyond_the_limit_ends_its_call_alone() {
    guarded(async {
        let bomb = vec![0; 100 * LIMIT];
        for encoding in ENCODINGS {
            let bomb = compressed(encoding, &bomb);
            assert!(bomb.len() < LIMIT);
            let inner = bomb.clone();
            let pieces = move || vec![data(inner.clone()), status("0")];
            let (far, tunnel) = far_with(answers_encoded(encoding, pieces)).await;
            let name = encoding.to_string();
            let (_, end) = call(&tunnel, &name, vec![data(bomb)]).await;
            assert_eq!(end.code(), Code::ResourceExhausted, "{end:?}");
            assert!(end.message().contains("the client's request"), "{end:?}");
            let (bytes, end) = outcome_of(&tunnel, raw_request(Body::empty())).await;
            assert_eq!(end.code(), Code::ResourceExhausted, "{end:?}");
            assert!(end.message().contains("the server's response"), "{end:?}");
            assert_eq!(bytes, b"");
            assert_usable(&client(&tunnel)).await;
            eventually(|| far.handler.kept_calls() == 0 && tunnel.kept_calls() == 0).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoding_that_nobody_knows_is_blamed_on_the_side_that_used_it() {
    guarded(async {
        let pieces = || vec![data(message(b"odd")), status("0")];
        let (_far, tunnel) = far_with(answers_encoded("snappy", pieces)).await;
        let (_, end) = call(&tunnel, "snappy", vec![data(message(b"odd"))]).await;
        assert_eq!(end.code(), Code::Unimplemented, "{end:?}");
        assert!(end.message().contains("the client's request"), "{end:?}");
        assert!(end.message().contains("`snappy`"), "{end:?}");
        let accepted = end.metadata().get("grpc-accept-encoding");
        assert_eq!(accepted.expect("there"), "zstd,gzip,deflate,identity");

        let (_, end) = outcome_of(&tunnel, raw_request(Body::empty())).await;
        assert_eq!(end.code(), Code::Unimplemented, "{end:?}");
        assert!(end.message().contains("the server's response"), "{end:?}");
        assert!(end.message().contains("`snappy`"), "{end:?}");
        assert_usable(&client(&tunnel)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_or_cut_compressed_message_fails_its_call() {
    guarded(async {
        for encoding in ENCODINGS {
            let whole = compressed(encoding, &[7; 1000]);
            let mut broken = whole.clone();
            broken[5..].fill(0xff);
            let cut = whole[..whole.len() - 1].to_vec();
            for bytes in [broken, cut] {
                let response = bytes.clone();
                let pieces = move || vec![data(response.clone()), status("0")];
                let (_far, tunnel) = far_with(answers_encoded(encoding, pieces)).await;
                let name = encoding.to_string();
                let (_, end) = call(&tunnel, &name, vec![data(bytes)]).await;
                assert_eq!(end.code(), Code::Internal, "{end:?}");
                assert!(end.message().contains("the client's request"), "{end:?}");
                let (_, end) = outcome_of(&tunnel, raw_request(Body::empty())).await;
                assert_eq!(end.code(), Code::Internal, "{end:?}");
                assert!(end.message().contains("the server's response"), "{end:?}");
            }
        }
    })
    .await;
}

/// A response that fails inside a message keeps its status.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_inside_a_compressed_message_keeps_its_status() {
    guarded(async {
        let pieces = || vec![data(&b"\x01\0\0\0\x09cut"[..]), status("9")];
        let (_far, tunnel) = far_with(answers_encoded(Gzip, pieces)).await;
        let (bytes, end) = outcome_of(&tunnel, raw_request(Body::empty())).await;
        assert_eq!(end.code(), Code::FailedPrecondition, "{end:?}");
        assert_eq!(bytes, b"");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_without_an_encoding_is_an_error_of_the_side_that_sent_it() {
    guarded(async {
        let flagged = || vec![data(compressed(Gzip, b"which?"))];
        let pieces = move || {
            [flagged(), vec![status("0")]]
                .into_iter()
                .flatten()
                .collect()
        };
        let (_far, tunnel) = far_with(answers_encoded("identity", pieces)).await;
        let (_, end) = call(&tunnel, "identity", flagged()).await;
        assert_eq!(end.code(), Code::Internal, "{end:?}");
        assert!(end.message().contains("the client's request"), "{end:?}");
        let (_, end) = outcome_of(&tunnel, raw_request(Body::empty())).await;
        assert_eq!(end.code(), Code::Internal, "{end:?}");
        assert!(end.message().contains("the server's response"), "{end:?}");
    })
    .await;
}
