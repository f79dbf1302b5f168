//! Messages that the client or the server compresses.

use bytes::{BufMut, Bytes, BytesMut};
use flate2::write::GzEncoder;
use futures::stream;
use http_body_util::StreamBody;
use prost::Message as _;
use std::io::Write as _;
use tonic::Code;
use tonic::body::Body;
use tonic::codec::CompressionEncoding::{self, Deflate, Gzip, Zstd};
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tower::ServiceExt as _;

use crate::client::run;
use crate::payload::{assert_sent, received, request, requests};
use crate::proto::Script;
use crate::service::{TestServer, scripted_with};
use crate::testing::assert_usable;
use crate::{Client, Fixture, Kind, Offer, Path, TestChannel};

const ENCODINGS: [CompressionEncoding; 3] = [Gzip, Deflate, Zstd];

/// Empty, small, and many chunks while it is not compressed.
const SIZES: [usize; 3] = [0, 300, 70_000];

async fn start(path: &dyn Path, configure: impl FnOnce(TestServer) -> TestServer) -> Fixture {
    Fixture::start_with(path, |probe| {
        Offer::new(Routes::new(scripted_with(probe, configure)))
    })
    .await
}

fn accepts_all(server: TestServer) -> TestServer {
    ENCODINGS
        .into_iter()
        .fold(server, TestServer::accept_compressed)
}

fn encoding_of(headers: &MetadataMap) -> Option<&str> {
    headers.get("grpc-encoding")?.to_str().ok()
}

/// Sends messages of all sizes in both directions.
async fn assert_carries(client: &Client, kind: Kind, answered: Option<CompressionEncoding>) {
    assert_carries_sizes(client, kind, &SIZES, answered).await;
}

async fn assert_carries_sizes(
    client: &Client,
    kind: Kind,
    sizes: &[usize],
    answered: Option<CompressionEncoding>,
) {
    for &size in sizes {
        let sent = requests(1, kind.requests(3), size);
        let script = Script::named("up").receive_all().summarize();
        let outcome = run(client, kind, &script, sent.clone()).await;
        assert_eq!(outcome.expect_success()[0].received, Some(received(&sent)));

        let count = kind.responses(3);
        let script = Script::named("down").receive_all().send(count, size, 9);
        let outcome = run(client, kind, &script, requests(1, 1, 1)).await;
        assert_sent(outcome.expect_success(), count, size, 9);
        let headers = outcome.headers.as_ref().expect("headers came");
        let answered = answered.map(|encoding| encoding.to_string());
        assert_eq!(encoding_of(headers), answered.as_deref(), "{size}");
    }
}

/// The client compresses its requests.
pub async fn compressed_requests_arrive(path: &dyn Path, kind: Kind) {
    let fixture = start(path, accepts_all).await;
    for encoding in ENCODINGS {
        let client = fixture.client.clone().send_compressed(encoding);
        assert_carries(&client, kind, None).await;
        let script = Script::named("report").receive_all().report();
        let outcome = run(&client, kind, &script, requests(1, 1, 1)).await;
        let named = outcome.expect_success()[0].metadata.iter();
        let named = named.filter(|entry| entry.key == "grpc-encoding");
        let named: Vec<_> = named.map(|entry| &entry.value[..]).collect();
        assert_eq!(named, [encoding.to_string().as_bytes()]);
    }
}

/// The server compresses its responses.
pub async fn compressed_responses_arrive(path: &dyn Path, kind: Kind) {
    for encoding in ENCODINGS {
        let fixture = start(path, |server| server.send_compressed(encoding)).await;
        let client = fixture.client.clone().accept_compressed(encoding);
        assert_carries(&client, kind, Some(encoding)).await;
    }
}

/// Both compress, in different ways.
pub async fn both_directions_may_be_compressed(path: &dyn Path, kind: Kind) {
    let fixture = start(path, |server| accepts_all(server).send_compressed(Zstd)).await;
    let client = fixture.client.clone().send_compressed(Gzip);
    let client = client.accept_compressed(Zstd);
    let sizes = [1, 3 << 20];
    assert_carries_sizes(&client, kind, &sizes, Some(Zstd)).await;
}

/// The client does not accept what the server would compress.
pub async fn a_client_that_accepts_nothing_gets_plain_responses(path: &dyn Path) {
    let fixture = start(path, |server| server.send_compressed(Gzip)).await;
    assert_carries(&fixture.client, Kind::Bidi, None).await;
    let client = fixture.client.clone().accept_compressed(Zstd);
    assert_carries(&client, Kind::Bidi, None).await;
}

/// The server does not accept the client's encoding.
pub async fn a_server_that_does_not_accept_the_encoding_says_what_it_accepts(
    path: &dyn Path,
    kind: Kind,
) {
    type Configure = fn(TestServer) -> TestServer;
    let servers: [(Configure, &str); 2] = [
        (|server| server, "identity"),
        (|server| server.accept_compressed(Zstd), "zstd,identity"),
    ];
    for (configure, accepted) in servers {
        let fixture = start(path, configure).await;
        let client = fixture.client.clone().send_compressed(Gzip);
        let script = Script::named("refused").receive_all().summarize();
        let outcome = run(&client, kind, &script, requests(1, 1, 300)).await;
        let status = outcome.expect_failure(Code::Unimplemented);
        let text = "Content is compressed with `gzip` which isn't supported";
        assert_eq!(status.message(), text);
        let value = status.metadata().get("grpc-accept-encoding");
        assert_eq!(value.expect("it says so"), accepted);
        assert_usable(&fixture.client).await;
    }
}

/// Messages of one stream with and without compression.
pub async fn messages_of_one_stream_may_differ(path: &dyn Path) {
    let fixture = start(path, accepts_all).await;
    let sizes = [
        (false, 10),
        (true, 70_000),
        (true, 0),
        (false, 0),
        (false, 70_000),
        (true, 5),
    ];
    let sent: Vec<_> = sizes.iter().map(|&(_, size)| request(1, size)).collect();
    let mut body = BytesMut::new();
    for (&(compressed, _), message) in sizes.iter().zip(&sent) {
        let mut data = message.encode_to_vec();
        if compressed {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&data).expect("to memory");
            data = encoder.finish().expect("to memory");
        }
        body.put_u8(compressed.into());
        body.put_u32(u32::try_from(data.len()).expect("small"));
        body.put_slice(&data);
    }
    let script = Script::named("mixed").receive_all().summarize();
    for cut in [101, 10_000, body.len()] {
        let response = raw_call(&fixture, &script, &body, cut).await;
        let (headers, body) = response.into_parts();
        assert_eq!(headers.headers.get("grpc-status"), None, "{headers:?}");
        let bytes = http_body_util::BodyExt::collect(body).await.expect("whole");
        assert_eq!(bytes.trailers().expect("trailers")["grpc-status"], "0");
        let message = bytes.to_bytes().slice(5..);
        let response = crate::proto::Response::decode(message).expect("a message");
        assert_eq!(response.received, Some(received(&sent)));
    }
}

/// Sends a request body in pieces, with `grpc-encoding: gzip`.
async fn raw_call(
    fixture: &Fixture,
    script: &Script,
    body: &[u8],
    cut: usize,
) -> http::Response<Body> {
    let metadata = script.request(()).into_parts().0;
    let pieces = body.chunks(cut).map(Bytes::copy_from_slice);
    let frames: Vec<_> = pieces
        .map(|piece| Ok::<_, tonic::Status>(http_body::Frame::data(piece)))
        .collect();
    let mut request = http::Request::new(Body::new(StreamBody::new(stream::iter(frames))));
    *request.method_mut() = http::Method::POST;
    let uri = format!("http://far.end{}", Kind::ClientStream.method());
    *request.uri_mut() = uri.parse().expect("a URI");
    *request.headers_mut() = metadata.into_headers();
    for (name, value) in [
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("grpc-encoding", "gzip"),
    ] {
        request
            .headers_mut()
            .insert(name, value.parse().expect("legal"));
    }
    let channel = fixture.channel.clone();
    channel.oneshot(request).await.expect("a response")
}

/// A message that says it is compressed, with no encoding named.
pub async fn a_compressed_message_without_an_encoding_is_an_internal_error(path: &dyn Path) {
    let fixture = start(path, accepts_all).await;
    let client = fixture.client.clone();
    let channel = tower::ServiceBuilder::new()
        .map_request(|mut request: http::Request<Body>| {
            request.headers_mut().remove("grpc-encoding");
            request
        })
        .service(fixture.channel.clone());
    let script = Script::named("unnamed").receive_all().summarize();
    let unnamed = Client::new(TestChannel::new(channel));
    let unnamed = unnamed.send_compressed(Gzip);
    let outcome = run(&unnamed, Kind::Unary, &script, requests(1, 1, 300)).await;
    let status = outcome.expect_failure(Code::Internal);
    assert!(status.message().contains("compressed-flag"), "{status:?}");
    assert_usable(&client).await;
}

/// A response that is small while it is compressed, and larger than the client's limit then.
pub async fn a_compressed_response_over_the_limit_is_not_inflated(path: &dyn Path) {
    let fixture = start(path, |server| server.send_compressed(Gzip)).await;
    let client = fixture.client.clone().accept_compressed(Gzip);
    let limited = client.clone().max_decoding_message_size(100_000);
    let script = Script::named("large").receive_all().send(1, 3 << 20, 1);
    let outcome = run(&limited, Kind::Unary, &script, requests(1, 1, 1)).await;
    outcome.expect_failure(Code::ResourceExhausted);
    assert_usable(&fixture.client).await;
}
