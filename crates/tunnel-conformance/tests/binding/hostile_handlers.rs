//! Our caller with older or faulty handlers.

use prost::Message as _;
use tonic::Code;
use tonic::body::Body;
use tunnel_client::{
    Config, ConnectionError, EndReason, ForwardTunnel, Revisions, TunnelChannel, TunnelError,
};
use tunnel_conformance::client::run;
use tunnel_conformance::payload::assert_pattern;
use tunnel_conformance::proto::{self, Script};
use tunnel_conformance::{Kind, Outcome};
use tunnel_core::StreamId;
use tunnel_proto::grpctunnel::v1::{ServerToClient, client_to_server, server_to_client};

use crate::support::peer::{Heard, RawHandler, RawServer, md};
use crate::support::raw_service::{outcome_of, raw_request};
use crate::support::{client, guarded, one_request};

/// Opens a tunnel over TCP to a hand-written handler. The handler announces these revisions. With
/// `None` it does not negotiate.
async fn tunnel_to(settings: Option<&[i32]>) -> (RawServer, TunnelChannel, RawHandler) {
    let mut server = RawServer::start().await;
    let opening = tokio::spawn(ForwardTunnel::new(server.server.channel().await).open());
    let handler = server.opening().await.accept(settings.is_some());
    if let Some(revisions) = settings {
        handler.settings(revisions);
    }
    let tunnel = opening.await.expect("no panic").expect("it opens");
    (server, tunnel, handler)
}

/// The error of an opening that receives these first frames, and whether the handler saw a reset.
async fn opening_fails(config: Config, first: impl FnOnce(&RawHandler)) -> (ConnectionError, bool) {
    let mut server = RawServer::start().await;
    let opening = ForwardTunnel::new(server.server.channel().await).config(config);
    let opening = tokio::spawn(opening.open());
    let mut handler = server.opening().await.accept(true);
    first(&handler);
    let error = opening.await.expect("no panic").expect_err("it fails");
    let TunnelError::Ended(EndReason::Error(error)) = error else {
        panic!("the tunnel should end with an error, not {error:?}");
    };
    // A reset is the caller's only signal to the handler.
    let told = matches!(handler.expect_end().await, Heard::Broken(_) | Heard::End);
    (error, told)
}

fn call(tunnel: &TunnelChannel, kind: Kind) -> tokio::task::JoinHandle<Outcome> {
    let client = client(tunnel);
    tokio::spawn(async move { run(&client, kind, &Script::default(), one_request()).await })
}

/// Receives a call and answers it.
async fn answer(handler: &mut RawHandler, revision: i32) -> i64 {
    let (id, new) = loop {
        let heard = handler.expect_frame().await;
        if let Some(client_to_server::Frame::NewStream(new)) = heard.frame {
            break (heard.stream_id, new);
        }
    };
    assert_eq!(new.protocol_revision, revision);
    assert!(new.method_name.starts_with('/'));
    handler.expect_half_close(id).await;
    let answer = proto::Response {
        payload: tunnel_conformance::payload::pattern(9, 1000),
        ..Default::default()
    };
    let answer = answer.encode_to_vec();
    handler.response_message(id, answer.len() as u32, &answer);
    handler.close(id, Code::Ok, md(&[]));
    id
}

async fn assert_answered(handler: &mut RawHandler, tunnel: &TunnelChannel, revision: i32) -> i64 {
    let mut id = 0;
    for kind in Kind::ALL {
        let call = call(tunnel, kind);
        id = answer(handler, revision).await;
        let outcome = call.await.expect("no panic");
        assert_pattern(&outcome.expect_success()[0].payload, 9, 1000);
    }
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_does_not_negotiate_gets_revision_zero() {
    guarded(async {
        let (_server, tunnel, mut handler) = tunnel_to(None).await;
        assert_eq!(handler.headers["grpctunnel-negotiate"], "on");
        assert_answered(&mut handler, &tunnel, 0).await;
    })
    .await;
}

/// The protocol requires this. The Go caller ends the tunnel instead.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_of_revisions_means_revision_zero() {
    guarded(async {
        let (_server, tunnel, mut handler) = tunnel_to(Some(&[])).await;
        assert_answered(&mut handler, &tunnel, 0).await;
        let (_server, tunnel, mut handler) = tunnel_to(Some(&[0])).await;
        assert_answered(&mut handler, &tunnel, 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_common_revision_is_used() {
    guarded(async {
        let (_server, tunnel, mut handler) = tunnel_to(Some(&[7, 1, 0])).await;
        assert_answered(&mut handler, &tunnel, 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_with_no_revision_in_common_is_an_error_that_says_so() {
    guarded(async {
        let (error, told) = opening_fails(Config::default(), |h| h.settings(&[7])).await;
        assert_eq!(error, ConnectionError::NoCommonRevision { theirs: vec![7] });
        assert!(told);
        let one = Config::builder().revisions(Revisions::OnlyOne).build();
        let (error, told) = opening_fails(one.expect("valid"), |h| h.settings(&[0])).await;
        assert_eq!(error, ConnectionError::NoCommonRevision { theirs: vec![0] });
        assert!(told);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_frame_that_is_not_settings_is_an_error() {
    guarded(async {
        let close = |handler: &RawHandler| handler.close(1, Code::Ok, md(&[]));
        let (error, told) = opening_fails(Config::default(), close).await;
        assert_eq!(
            error,
            ConnectionError::SettingsMissing {
                id: StreamId::new(1),
            }
        );
        assert!(told);
        let garbage = |handler: &RawHandler| handler.say_bytes(&b"\0\0\0\0\x03\xff\xff\xff"[..]);
        let (error, told) = opening_fails(Config::default(), garbage).await;
        assert!(
            matches!(error, ConnectionError::Undecodable(_)),
            "{error:?}"
        );
        assert!(told);
    })
    .await;
}

/// Later versions of the protocol may add frames.
#[tokio::test(flavor = "multi_thread")]
async fn frames_of_unknown_kinds_are_ignored() {
    guarded(async {
        let (_server, tunnel, mut handler) = tunnel_to(Some(&[0, 1])).await;
        let unknown = |handler: &RawHandler, stream_id: i64| {
            let mut frame = ServerToClient {
                stream_id,
                frame: None,
            }
            .encode_to_vec();
            handler.say_bytes(crate::support::body::message(&frame));
            // The unknown field 99 of four bytes.
            frame.extend_from_slice(&[0x9a, 0x06, 0x04, 1, 2, 3, 4]);
            handler.say_bytes(crate::support::body::message(&frame));
        };
        unknown(&handler, -1);
        let first = call(&tunnel, Kind::Bidi);
        let id = handler.expect_call().await;
        unknown(&handler, id);
        handler.close(id, Code::Ok, md(&[]));
        first.await.expect("no panic").expect_success();
        unknown(&handler, id);
        assert_answered(&mut handler, &tunnel, 1).await;
    })
    .await;
}

/// The caller resets the tunnel and fails the calls in flight.
#[tokio::test(flavor = "multi_thread")]
async fn protocol_errors_end_the_tunnel() {
    guarded(async {
        type Fault = fn(&RawHandler, i64);
        let faults: [(&str, Fault); 5] = [
            ("undecodable", |h, _| {
                h.say_bytes(&b"\0\0\0\0\x03\xff\xff\xff"[..])
            }),
            ("compressed", |h, _| h.say_bytes(&b"\x01\0\0\0\x01\x08"[..])),
            ("limit", |h, _| h.say_bytes(&b"\0\xff\xff\xff\xff"[..])),
            ("never opened", |h, id| h.close(id + 1, Code::Ok, md(&[]))),
            ("settings", |h, id| {
                h.frame(id, server_to_client::Frame::Settings(Default::default()));
            }),
        ];
        for (word, fault) in faults {
            let (_server, tunnel, mut handler) = tunnel_to(Some(&[0, 1])).await;
            let calls = Kind::ALL.map(|kind| call(&tunnel, kind));
            let mut id = 0;
            for _ in &calls {
                id = handler.expect_call().await;
            }
            fault(&handler, id);
            for call in calls {
                let outcome = call.await.expect("no panic");
                let status = outcome.expect_failure(Code::Unavailable);
                assert!(status.message().contains(word), "{word}: {status:?}");
            }
            let end = handler.expect_end().await;
            assert!(
                matches!(end, Heard::Broken(_) | Heard::End),
                "{word}: {end:?}"
            );
            tunnel.close().await;
        }
    })
    .await;
}

/// Late frames belong to calls that have just ended or ended earlier.
#[tokio::test(flavor = "multi_thread")]
async fn late_frames_of_calls_that_have_ended_are_ignored() {
    guarded(async {
        let (_server, tunnel, mut handler) = tunnel_to(Some(&[0, 1])).await;
        let last = assert_answered(&mut handler, &tunnel, 1).await;
        for id in 0..=last {
            handler.response_headers(id, md(&[("late", "1")]));
            handler.response_message(id, 4, b"late");
            handler.frame(id, server_to_client::Frame::WindowUpdate(1000));
            handler.close(id, Code::DataLoss, md(&[]));
        }
        assert_answered(&mut handler, &tunnel, 1).await;
    })
    .await;
}

/// A stream error ends the call, and the handler receives a cancel.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_on_one_stream_ends_that_call_alone() {
    guarded(async {
        type Fault = fn(&RawHandler, i64);
        let faults: [(Code, Fault); 5] = [
            (Code::ResourceExhausted, |h, id| {
                let window = Config::default().initial_window();
                h.response_message(id, 2 * window, &vec![0; window as usize + 1]);
            }),
            (Code::Internal, |h, id| {
                h.response_message(id, 2, b"more than two")
            }),
            (Code::Internal, |h, id| {
                h.response_message(id, 9, b"half");
                h.response_message(id, 9, b"half");
            }),
            (Code::Internal, |h, id| {
                h.response_headers(id, md(&[]));
                h.response_headers(id, md(&[]));
            }),
            (Code::OutOfRange, |h, id| {
                h.response_message(id, 1 << 30, b"the first bytes")
            }),
        ];
        let (_server, tunnel, mut handler) = tunnel_to(Some(&[0, 1])).await;
        for (code, fault) in faults {
            for kind in Kind::ALL {
                let call = call(&tunnel, kind);
                let id = handler.expect_call().await;
                handler.expect_half_close(id).await;
                fault(&handler, id);
                let outcome = call.await.expect("no panic");
                outcome.expect_failure(code);
                let told = handler.expect_frame().await;
                assert_eq!(told.stream_id, id);
                assert_eq!(told.frame, Some(client_to_server::Frame::Cancel(())));
            }
        }
        assert_answered(&mut handler, &tunnel, 1).await;
    })
    .await;
}

/// `http::HeaderMap` panics above about 24,000 entries.
#[tokio::test(flavor = "multi_thread")]
async fn more_metadata_than_a_header_map_holds_ends_the_call_alone() {
    guarded(async {
        let config = Config::builder()
            .max_metadata_size(4 << 20)
            .max_frame_size(16 << 20);
        let mut server = RawServer::start().await;
        let opening = ForwardTunnel::new(server.server.channel().await);
        let opening = opening.config(config.build().expect("valid"));
        let opening = tokio::spawn(opening.open());
        let mut handler = server.opening().await.accept(true);
        handler.settings(&[0, 1]);
        let tunnel = opening.await.expect("no panic").expect("it opens");
        let keys: Vec<_> = (0..40_000).map(|i| format!("k{i}")).collect();
        let entries: Vec<_> = keys.iter().map(|key| (key.as_str(), "")).collect();
        for in_headers in [true, false] {
            let call = call(&tunnel, Kind::ServerStream);
            let id = handler.expect_call().await;
            if in_headers {
                handler.response_headers(id, md(&entries));
            }
            handler.close(id, Code::Aborted, md(&entries));
            let outcome = call.await.expect("no panic");
            outcome.expect_failure(Code::ResourceExhausted);
        }
        assert_answered(&mut handler, &tunnel, 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_not_utf8_is_not_sent_to_a_handler_that_does_not_offer_to_take_it() {
    guarded(async {
        let mut server = RawServer::start().await;
        let opening = ForwardTunnel::new(server.server.channel().await);
        let opening = tokio::spawn(opening.open());
        let mut handler = server.opening().await.accept(true);
        handler.settings(&[0, 1]);
        let tunnel = opening.await.expect("no panic").expect("it opens");
        let mut request = raw_request(Body::empty());
        for value in [&b"\xff\xfe"[..], b"text"] {
            let value = http::HeaderValue::from_bytes(value).expect("legal");
            request.headers_mut().append("x-mine", value);
        }
        let _call = tokio::spawn(async move { outcome_of(&tunnel, request).await });
        let frame = handler.expect_frame().await.frame;
        let Some(client_to_server::Frame::NewStream(new)) = frame else {
            panic!("the call comes first, not {frame:?}");
        };
        let headers = new.request_headers.expect("there are some").md;
        assert_eq!(headers["x-mine"].val, ["text"]);
    })
    .await;
}
