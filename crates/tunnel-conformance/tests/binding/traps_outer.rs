//! Traps of tonic in the outer call, the stream that carries a tunnel.

use std::time::Duration;

use futures::future::join_all;
use prost::Message as _;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::ServiceExt as _;
use tunnel_client::{
    Config, ConnectionError, EndReason, ForwardTunnel, TransportCause, TransportError,
    TunnelChannel,
};
use tunnel_conformance::client::{open, run};
use tunnel_conformance::payload::{assert_pattern, assert_sent, request};
use tunnel_conformance::proto::{self, Script};
use tunnel_conformance::{Kind, Outcome};
use tunnel_proto::grpctunnel::v1::{ClientToServer, MessageData, NewStream, client_to_server};
use tunnel_tonic::outer::OPEN_TUNNEL_PATH;

use crate::support::body::{Pieces, data, message};
use crate::support::peer::{Heard, RawCaller, RawHandler, md, raw_service};
use crate::support::raw_service::{raw_call, raw_outcome};
use crate::support::{Far, assert_usable, client, eventually, guarded, one, one_request};

/// A tunnel without a network to a handler that the test controls.
async fn by_hand() -> (TunnelChannel, RawHandler) {
    let (service, mut openings) = raw_service();
    let opening = tokio::spawn(ForwardTunnel::new(service).open());
    let handler = openings.recv().await.expect("an opening").accept(true);
    handler.settings(&[0, 1]);
    let tunnel = opening.await.expect("no panic").expect("it opens");
    (tunnel, handler)
}

/// Makes a call of this kind in its own task.
fn call(tunnel: &TunnelChannel, kind: Kind) -> tokio::task::JoinHandle<Outcome> {
    let client = client(tunnel);
    tokio::spawn(async move { run(&client, kind, &Script::default(), one_request()).await })
}

/// The start of a call, its message and its half-close leave together,
/// even when tokio's budget would make the request return pending.
///
/// The test uses one thread, so the handler reads the call before any other task runs.
#[tokio::test]
async fn frames_that_are_ready_leave_in_one_piece() {
    guarded(async {
        let (tunnel, mut handler) = by_hand().await;
        let heard = tokio::spawn(async move {
            for pieces in 1..=2 {
                let id = handler.expect_call().await;
                handler.expect_half_close(id).await;
                assert_eq!(handler.pieces, pieces);
                handler.close(id, Code::Ok, md(&[]));
            }
        });
        let _ = call(&tunnel, Kind::Unary).await;

        let (send, receive) = tokio::sync::mpsc::channel(500);
        for _ in 0..500 {
            send.try_send(data(message(b"x"))).expect("room");
        }
        drop(send);
        let messages = Pieces::new(tokio_stream::wrappers::ReceiverStream::new(receive));
        let call = tokio::spawn(async move { raw_outcome(&tunnel, Body::new(messages)).await });
        call.await.expect("no panic");
        heard.await.expect("one piece each");
    })
    .await;
}

/// Tonic panics on malformed `grpc-status-details-bin`. The status of a call comes only
/// from its close frame, never from metadata.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_s_reserved_metadata_neither_panics_the_stub_nor_is_seen() {
    guarded(async {
        let reserved = [
            ("grpc-status", "5"),
            ("grpc-message", "%zz"),
            ("grpc-status-details-bin", "!not base64!"),
            ("grpc-encoding", "gzip"),
            ("grpc-accept-encoding", "gzip"),
            ("GRPC-Status", "999"),
            ("content-type", "text/html"),
            ("te", "gzip"),
            ("connection", "close"),
            ("host", "elsewhere"),
            (":status", "500"),
            ("", "empty"),
            ("bad key\n", "x"),
            ("x-bad", "line\nbreak"),
            ("x-good", "kept"),
            ("x-good-bin", "\u{ff}"),
        ];
        let assert_clean = |metadata: &tonic::metadata::MetadataMap| {
            assert_eq!(metadata.get("x-good").expect("kept"), "kept");
            let bytes = metadata.get_bin("x-good-bin").expect("kept");
            assert_eq!(bytes.to_bytes().expect("base64"), &[0xff][..]);
            let headers = metadata.clone().into_headers();
            for (key, value) in reserved
                .iter()
                .filter(|(key, _)| !key.starts_with("x-good"))
            {
                let seen = headers.get(*key);
                assert!(seen.is_none_or(|seen| seen != value), "{key}: {seen:?}");
            }
        };
        let (tunnel, mut handler) = by_hand().await;
        for kind in Kind::ALL {
            // Reserved keys in trailers alone. The code comes from the frame.
            let failing = call(&tunnel, kind);
            let id = handler.expect_call().await;
            handler.close(id, Code::NotFound, md(&reserved));
            let outcome = failing.await.expect("no panic");
            let status = outcome.expect_failure(Code::NotFound);
            assert_eq!(status.details(), b"");
            assert_clean(status.metadata());

            // Reserved keys in headers, and in trailers after a message.
            let succeeding = call(&tunnel, kind);
            let id = handler.expect_call().await;
            handler.response_headers(id, md(&reserved));
            let answer = proto::Response {
                payload: "answer".into(),
                ..Default::default()
            };
            let answer = answer.encode_to_vec();
            handler.response_message(id, answer.len() as u32, &answer);
            handler.close(id, Code::Ok, md(&reserved));
            let outcome = succeeding.await.expect("no panic");
            assert_eq!(outcome.expect_success()[0].payload, "answer");
            assert_clean(outcome.headers.as_ref().expect("headers"));
            if kind.downloads() {
                assert_clean(outcome.expect_trailers());
            }

            // An invalid status.
            let failing = call(&tunnel, kind);
            let id = handler.expect_call().await;
            handler.response_headers(id, md(&reserved));
            handler.close(id, Code::Aborted, md(&[]));
            failing
                .await
                .expect("no panic")
                .expect_failure(Code::Aborted);
        }
    })
    .await;
}

/// Tonic accepts OK trailers after a partial message as a clean end.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_cut_short_by_an_ok_end_is_internal() {
    guarded(async {
        let (tunnel, mut handler) = by_hand().await;
        for kind in Kind::ALL {
            for part in [&b""[..], b"\x0a\x08half"] {
                let cut = call(&tunnel, kind);
                let id = handler.expect_call().await;
                handler.response_headers(id, md(&[]));
                handler.response_message(id, 10, part);
                handler.close(id, Code::Ok, md(&[]));
                cut.await.expect("no panic").expect_failure(Code::Internal);
            }
        }
    })
    .await;
}

/// A unary call without a response message must fail.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_with_one_response_fails_on_an_ok_end_without_a_message() {
    guarded(async {
        let (tunnel, mut handler) = by_hand().await;
        for kind in Kind::ALL {
            for headers in [false, true] {
                let call = call(&tunnel, kind);
                let id = handler.expect_call().await;
                if headers {
                    handler.response_headers(id, md(&[]));
                }
                handler.close(id, Code::Ok, md(&[]));
                let outcome = call.await.expect("no panic");
                if kind.downloads() {
                    assert_sent(outcome.expect_success(), 0, 0, 0);
                } else {
                    outcome.expect_failure(Code::Internal);
                }
            }
        }
    })
    .await;
}

/// A tunnel that ends without a status was lost, not closed.
#[tokio::test(flavor = "multi_thread")]
async fn an_outer_response_without_trailers_is_a_lost_tunnel() {
    guarded(async {
        for headers_first in [false, true] {
            let (tunnel, mut handler) = by_hand().await;
            let calls = Kind::ALL.map(|kind| call(&tunnel, kind));
            for _ in &calls {
                let id = handler.expect_call().await;
                if headers_first {
                    handler.response_headers(id, md(&[]));
                }
            }
            handler.finish();
            for call in calls {
                call.await
                    .expect("no panic")
                    .expect_failure(Code::Unavailable);
            }
            let reason = tunnel.ended().await;
            let lost = reason.transport_error().map(TransportError::cause);
            assert_eq!(lost, Some(TransportCause::EndedWithoutStatus));
        }
    })
    .await;
}

/// Calls in flight end as UNAVAILABLE with the cause, for every end of the outer call.
#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_its_far_end_ends_is_unavailable_with_the_cause() {
    guarded(async {
        for end in [
            Status::ok(""),
            Status::internal("of the far end"),
            Status::cancelled("of the far end"),
            Status::unknown("of the far end"),
        ] {
            let (tunnel, mut handler) = by_hand().await;
            let calls = Kind::ALL.map(|kind| call(&tunnel, kind));
            for _ in &calls {
                handler.expect_call().await;
            }
            handler.end(&end);
            for call in calls {
                let outcome = call.await.expect("no panic");
                let status = outcome.expect_failure(Code::Unavailable);
                assert!(status.message().contains(end.message()), "{status:?}");
            }
            let reason = tunnel.ended().await;
            match end.code() {
                Code::Ok => assert_eq!(reason, EndReason::PeerClosed),
                _ => assert!(reason.to_string().contains("of the far end"), "{reason}"),
            }
        }
        // The outer call breaks in the middle of a frame.
        let (tunnel, mut handler) = by_hand().await;
        let call = call(&tunnel, Kind::Unary);
        handler.expect_call().await;
        handler.say_bytes(&b"\0\0\0\0\x09half"[..]);
        handler.say_piece(Err(Status::unknown("reset")));
        call.await
            .expect("no panic")
            .expect_failure(Code::Unavailable);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_trailers_of_the_outer_call_cause_no_panic() {
    guarded(async {
        let (tunnel, mut handler) = by_hand().await;
        let call = call(&tunnel, Kind::Bidi);
        handler.expect_call().await;
        let mut trailers = http::HeaderMap::new();
        for (key, value) in [
            ("grpc-status", "not a number"),
            ("grpc-message", "%FF%"),
            ("grpc-status-details-bin", "!not base64!"),
        ] {
            trailers.insert(key, value.parse().expect("legal"));
        }
        handler.say_piece(Ok(http_body::Frame::trailers(trailers)));
        call.await
            .expect("no panic")
            .expect_failure(Code::Unavailable);
        tunnel.close().await;
    })
    .await;
}

/// A frame may arrive in any number of pieces.
#[tokio::test(flavor = "multi_thread")]
async fn frames_of_the_outer_call_may_be_cut_anywhere() {
    guarded(async {
        let far = Far::start().await;
        let mut caller = RawCaller::negotiated(far.server.channel().await).await;
        let script = Script::named("cut").receive_all().send(1, 10, 1);
        let carried = script.request(());
        let script = carried.metadata().get("x-script").expect("a script");
        let script = script.to_str().expect("text").to_owned();
        let frames = [
            client_to_server::Frame::NewStream(tunnel_proto::grpctunnel::v1::NewStream {
                method_name: Kind::Unary.method().to_owned(),
                request_headers: Some(md(&[("x-script", &script)])),
                initial_window_size: 65_536,
                protocol_revision: 1,
            }),
            client_to_server::Frame::RequestMessage(Default::default()),
            client_to_server::Frame::HalfClose(()),
        ];
        for frame in frames {
            let frame = tunnel_proto::grpctunnel::v1::ClientToServer {
                stream_id: 1,
                frame: Some(frame),
            };
            for byte in message(&frame.encode_to_vec()) {
                caller.say_bytes(vec![byte]);
            }
        }
        assert_eq!(caller.expect_close(1).await.0, Code::Ok);
        assert_eq!(far.probe.record("cut").finished, 1);
    })
    .await;
}

/// An opener waits only for the headers. The server sends them without waiting for a first
/// frame.
#[tokio::test(flavor = "multi_thread")]
async fn the_headers_of_a_tunnel_come_at_once() {
    guarded(async {
        let far = Far::start().await;
        // Without negotiation there is no frame before the first call.
        let caller = RawCaller::open(far.server.channel().await, false).await;
        assert_eq!(caller.headers["grpctunnel-negotiate"], "on");
        assert_eq!(caller.headers["content-type"], "application/grpc");
    })
    .await;
}

/// HTTP/2 connections with small windows fail if many small frames stay unread. A tunnel
/// reads every frame at once.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_calls_beside_unread_streams_live_with_small_http2_windows() {
    guarded(async {
        let far = Far::start().await;
        let endpoint = far
            .server
            .endpoint()
            .initial_stream_window_size(65_535)
            .initial_connection_window_size(65_535);
        let channel = endpoint.connect().await.expect("a connection");
        let tunnel = ForwardTunnel::new(channel).open().await;
        let tunnel = tunnel.expect("the far end accepts a tunnel");
        let client = client(&tunnel);
        let mut unread = Vec::new();
        for _ in 0..4 {
            let script = Script::named("unread").receive(1).send(100, 65_536, 1);
            let ongoing = open(&client, Kind::ServerStream, script.request(one())).await;
            unread.push(ongoing.expect("headers come"));
        }
        for _ in 0..5 {
            let calls = (0..200).map(|seed| {
                let client = &client;
                async move {
                    let script = Script::default().echo_all();
                    let outcome = run(client, Kind::Unary, &script, vec![request(seed, 50)]).await;
                    assert_pattern(&outcome.expect_success()[0].payload, seed, 50);
                }
            });
            join_all(calls).await;
        }
        for ongoing in unread {
            assert_sent(ongoing.outcome().await.expect_success(), 100, 65_536, 1);
        }
    })
    .await;
}

/// Dropping the response of a call does not reset it in HTTP/2. In a tunnel it cancels the
/// call. Dropping the tunnel ends the outer call.
#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_last_handles_of_a_tunnel_ends_its_outer_call() {
    guarded(async {
        let (tunnel, mut handler) = by_hand().await;
        let body = Pieces::then_pending(Vec::new());
        let calling = tunnel.clone();
        let call = tokio::spawn(async move { raw_call(&calling, body).await });
        let id = handler.expect_call().await;
        handler.response_headers(id, md(&[]));
        let response = call.await.expect("no panic").expect("headers come");
        drop(tunnel);
        drop(response);
        let cancel = handler.expect_frame().await;
        assert_eq!(cancel.frame, Some(client_to_server::Frame::Cancel(())));
        assert!(matches!(handler.hear().await, Heard::End));
    })
    .await;
}

/// A server notices the end of its client only when its outbound half is dropped. A
/// request that just finishes also ends the tunnel.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_finishes_ends_the_tunnel_and_its_calls() {
    guarded(async {
        let far = Far::start().await;
        for breaks in [false, true] {
            let mut caller = RawCaller::negotiated(far.server.channel().await).await;
            caller.begin(1, Kind::Bidi.method());
            eventually(|| far.handler.kept_calls() > 0).await;
            if breaks {
                caller.say_piece(Err(Status::unknown("a request that breaks")));
            }
            caller.finish();
            far.no_tunnels().await;
            match caller.expect_end().await {
                Heard::Status(status) => assert_eq!(status.code(), Code::Ok),
                other => assert!(breaks, "{other:?}"),
            }
        }
        assert_usable(&client(&far.tunnel().await)).await;
    })
    .await;
}

/// A transport that drops the tunnel's outbound half is lost. This
/// holds even if its inbound half stays silent or is not polled because too much data is unread.
#[tokio::test(flavor = "multi_thread")]
async fn a_transport_that_drops_what_a_tunnel_sends_has_lost_it() {
    guarded(async {
        // The server's end.
        let config = Config::builder()
            .unread_high_mark(1)
            .unread_low_mark(0)
            .unread_stall_timeout(Duration::from_secs(3600));
        let far = Far::start_with(|b| b.config(config.build().expect("valid")).build()).await;
        let frame = |frame| {
            let frame = ClientToServer {
                stream_id: 1,
                frame: Some(frame),
            };
            data(message(&frame.encode_to_vec()))
        };
        let new = client_to_server::Frame::NewStream(NewStream {
            method_name: Kind::Bidi.method().to_owned(),
            ..Default::default()
        });
        let first = client_to_server::Frame::RequestMessage(MessageData {
            size: 4,
            data: "unread".as_bytes()[..2].into(),
            ..Default::default()
        });
        for said in [vec![frame(new.clone())], vec![frame(new), frame(first)]] {
            let request = http::Request::post(OPEN_TUNNEL_PATH);
            let request = request.header("content-type", "application/grpc");
            let request = request.body(Pieces::then_pending(said));
            let response = far.handler.service().oneshot(request.expect("legal")).await;
            eventually(|| far.handler.kept_calls() > 0).await;
            drop(response);
            far.no_tunnels().await;
        }

        // The client's end.
        let (service, mut openings) = raw_service();
        let opening = tokio::spawn(ForwardTunnel::new(service).open());
        let mut handler = openings.recv().await.expect("an opening").accept(true);
        handler.settings(&[0, 1]);
        let tunnel = opening.await.expect("no panic").expect("it opens");
        let call = call(&tunnel, Kind::Bidi);
        handler.expect_call().await;
        handler.stop_listening();
        call.await
            .expect("no panic")
            .expect_failure(Code::Unavailable);
        let reason = tunnel.ended().await;
        let EndReason::Error(ConnectionError::TransportLost(_)) = reason else {
            panic!("the tunnel was lost, not {reason:?}");
        };
    })
    .await;
}

/// Frames received before the transport dropped the client's outbound half still count. A server
/// that ends the tunnel cleanly reads no more of the request either.
#[tokio::test]
async fn a_tunnel_that_ended_cleanly_was_not_lost_although_its_request_was_dropped() {
    guarded(async {
        let (tunnel, mut handler) = by_hand().await;
        let call = call(&tunnel, Kind::ServerStream);
        let id = handler.expect_call().await;
        handler.response_headers(id, md(&[]));
        handler.close(id, Code::Ok, md(&[]));
        handler.end(&Status::ok(""));
        handler.stop_listening();
        call.await.expect("no panic").expect_success();
        assert_eq!(tunnel.ended().await, EndReason::PeerClosed);
    })
    .await;
}
