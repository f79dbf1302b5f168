//! Traps of tonic in the bodies of tunnelled calls.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use http::HeaderMap;
use http_body::{Body as _, Frame};
use tokio::sync::Notify;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::ServiceExt as _;
use tunnel_client::TunnelChannel;
use tunnel_conformance::client::run;
use tunnel_conformance::proto::Script;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::{Kind, TestChannel};

use crate::support::body::{Pieces, Seen, data, message, read_all, status};
use crate::support::raw_service::{
    RawService, answers, answers_with, raw_call, raw_outcome, response,
};
use crate::support::{Far, assert_usable, client, eventually, guarded, one_request};

async fn far_with(service: RawService) -> (Far, TunnelChannel) {
    let far = Far::start_with(|builder| builder.add_service(service).build()).await;
    let tunnel = far.tunnel().await;
    (far, tunnel)
}

/// Echoes the request's DATA frames and ends with OK.
fn echoes() -> RawService {
    answers(|request| async {
        let (bytes, end) = read_all(request.into_body()).await;
        match end {
            Ok(_) => response(Pieces::all(vec![data(bytes), status("0")])),
            Err(status) => status.into_http(),
        }
    })
}

/// DATA frames are not messages. The five-byte prefix of a message may be split across five
/// frames.
#[tokio::test(flavor = "multi_thread")]
async fn messages_and_their_prefixes_may_be_cut_anywhere() {
    guarded(async {
        let whole: Vec<u8> = [0, 1, 5, 20_000, 0, 70_000]
            .into_iter()
            .flat_map(|size| message(&vec![size as u8; size]))
            .collect();
        for cut in [1, 2, 3, 4, 7, 6_000, whole.len()] {
            let response_bytes = whole.clone();
            let (_far, tunnel) = far_with(answers(move |request| {
                let bytes = response_bytes.clone();
                async move {
                    let (received, _) = read_all(request.into_body()).await;
                    assert_eq!(received, bytes);
                    let mut pieces: Vec<_> = bytes
                        .chunks(cut)
                        .map(|piece| data(piece.to_vec()))
                        .collect();
                    pieces.push(status("0"));
                    response(Pieces::all(pieces))
                }
            }))
            .await;
            let pieces = whole
                .chunks(cut)
                .map(|piece| data(piece.to_vec()))
                .collect();
            let (bytes, end) = raw_outcome(&tunnel, Pieces::all(pieces)).await;
            assert_eq!(end.code(), Code::Ok, "cut {cut}: {end:?}");
            assert!(bytes == whole, "cut {cut}");
        }
    })
    .await;
}

/// `Body::new` drops a body that reports its end, with its trailers. The body of a response
/// that has already ended must not report its end before its trailers are taken.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_that_arrived_before_their_body_was_polled_are_not_lost() {
    guarded(async {
        let (_far, tunnel) = far_with(answers(|_| async {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().expect("legal"));
            trailers.insert("x-last", "words".parse().expect("legal"));
            response(Pieces::all(vec![Ok(Frame::trailers(trailers))]))
        }))
        .await;
        let response = raw_call(&tunnel, Body::empty()).await;
        let body = response.expect("headers come").into_body();
        // The call works, so the end of the first call has been processed at both ends.
        assert_usable(&client(&tunnel)).await;
        assert!(!body.is_end_stream());
        let (bytes, end) = read_all(Body::new(body)).await;
        assert_eq!(bytes, []);
        assert_eq!(end.expect("no error").expect("trailers")["x-last"], "words");
    })
    .await;
}

/// Tonic accepts a truncated response with OK trailers as complete.
#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_ends_inside_a_message_is_internal() {
    guarded(async {
        let whole = message(b"whole");
        for cut in [1, 4, 5, 7] {
            let mut bytes = whole.clone();
            bytes.extend_from_slice(&whole[..cut]);
            let (_far, tunnel) =
                far_with(answers_with(move || vec![data(bytes.clone()), status("0")])).await;
            let (_, end) = raw_outcome(&tunnel, Body::empty()).await;
            assert_eq!(end.code(), Code::Internal, "cut {cut}: {end:?}");
        }
        // A failure of the call itself takes precedence over the truncation.
        let (_far, tunnel) = far_with(answers_with(|| {
            vec![data(message(b"whole")[..7].to_vec()), status("9")]
        }))
        .await;
        let (_, end) = raw_outcome(&tunnel, Body::empty()).await;
        assert_eq!(end.code(), Code::FailedPrecondition, "{end:?}");
    })
    .await;
}

/// A truncated request: the call fails at the caller, and the handler sees no clean end.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_ends_inside_a_message_is_internal() {
    guarded(async {
        let ends = Arc::new(std::sync::Mutex::new(Vec::new()));
        let note = ends.clone();
        let (far, tunnel) = far_with(answers(move |request| {
            let note = note.clone();
            async move {
                let (_, end) = read_all(request.into_body()).await;
                note.lock().expect("not poisoned").push(end.is_ok());
                response(Pieces::all(vec![status("0")]))
            }
        }))
        .await;
        for cut in [1, 5, 7] {
            let piece = || data(message(b"whole")[..cut].to_vec());
            let (_, end) = raw_outcome(&tunnel, Pieces::all(vec![piece()])).await;
            assert_eq!(end.code(), Code::Internal, "cut {cut}: {end:?}");
            // The request ends after the call has begun.
            let later = stream::iter(vec![piece()]).chain(stream::once(async {
                tokio::task::yield_now().await;
                data(Vec::new())
            }));
            let (_, end) = raw_outcome(&tunnel, Body::new(Pieces::new(later))).await;
            assert_eq!(end.code(), Code::Internal, "cut {cut}: {end:?}");
        }
        eventually(|| far.handler.kept_calls() == 0).await;
        let ends = ends.lock().expect("not poisoned").clone();
        assert!(ends.iter().all(|ended_cleanly| !ended_cleanly), "{ends:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_without_a_status_is_unknown() {
    guarded(async {
        for trailers in [false, true] {
            let (_far, tunnel) = far_with(answers_with(move || {
                let mut pieces = vec![data(message(b"whole"))];
                if trailers {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("x-last", "words".parse().expect("legal"));
                    pieces.push(Ok(Frame::trailers(trailers)));
                }
                pieces
            }))
            .await;
            let (bytes, end) = raw_outcome(&tunnel, Body::empty()).await;
            assert_eq!(bytes, message(b"whole"));
            assert_eq!(end.code(), Code::Unknown, "{end:?}");
            assert_eq!(end.metadata().get("x-last").is_some(), trailers);
        }
    })
    .await;
}

/// [`Pieces`] panics if it is polled after its error. The data before the error is never
/// delivered as a success.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_failed_is_not_polled_again() {
    guarded(async {
        let error = || Err(Status::resource_exhausted("too much of it"));
        let (far, tunnel) = far_with(echoes()).await;
        let (_, end) = raw_outcome(&tunnel, Pieces::all(vec![error()])).await;
        assert_eq!(end.code(), Code::ResourceExhausted, "{end:?}");
        let late = stream::iter(vec![data(message(b"first"))]).chain(stream::once(async move {
            tokio::task::yield_now().await;
            error()
        }));
        let (_, end) = raw_outcome(&tunnel, Body::new(Pieces::new(late))).await;
        assert_eq!(end.code(), Code::ResourceExhausted, "{end:?}");
        eventually(|| far.handler.kept_calls() == 0 && tunnel.kept_calls() == 0).await;

        let (far, tunnel) = far_with(answers_with(move || {
            vec![data(message(b"first")), error(), data(message(b"after"))]
        }))
        .await;
        let (bytes, end) = raw_outcome(&tunnel, Body::empty()).await;
        assert_eq!(bytes, message(b"first"));
        assert_eq!(end.code(), Code::ResourceExhausted, "{end:?}");
        assert_eq!(end.message(), "too much of it");
        eventually(|| far.handler.kept_calls() == 0 && tunnel.kept_calls() == 0).await;
    })
    .await;
}

/// The conformance suite tests traps 4 and 7 for a client that cancels. This test covers the end of
/// the tunnel: no handler's request stream may end cleanly.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_tunnel_is_no_clean_end_of_an_upload() {
    guarded(async {
        for how in ["close", "drain"] {
            let (noted, mut ends) = tokio::sync::mpsc::unbounded_channel();
            let started = Arc::new(Notify::new());
            let notify = started.clone();
            let (far, tunnel) = far_with(answers(move |request| {
                let (noted, notify) = (noted.clone(), notify.clone());
                // The reading task outlives the handler.
                let reading = tokio::spawn(async move {
                    notify.notify_one();
                    let (bytes, end) = read_all(request.into_body()).await;
                    let _ = noted.send((bytes, end.map_err(|status| status.code())));
                });
                async {
                    let _ = reading.await;
                    response(Pieces::all(vec![status("0")]))
                }
            }))
            .await;
            let body = Pieces::then_pending(vec![data(message(b"first")), data(vec![0, 0])]);
            let call = tokio::spawn({
                let tunnel = tunnel.clone();
                async move { raw_outcome(&tunnel, body).await }
            });
            started.notified().await;
            match how {
                "close" => tunnel.close().await,
                _ => far.handler.drain(Duration::ZERO).await,
            }
            let (_, status) = call.await.expect("no panic");
            assert_eq!(status.code(), Code::Unavailable, "{how}: {status:?}");
            let (_, end) = ends.recv().await.expect("the request stream ends");
            assert!(end.is_err(), "{how}: {end:?}");
            assert_ne!(
                end,
                Err(Code::Cancelled),
                "{how}: tonic reads it as a clean end"
            );
        }
    })
    .await;
}

/// More than a hundred empty DATA frames end a connection.
#[tokio::test(flavor = "multi_thread")]
async fn no_data_frame_is_empty_in_any_direction() {
    guarded(async {
        let (outer, inner) = (
            [Seen::default(), Seen::default()],
            [Seen::default(), Seen::default()],
        );
        let watched = inner[1].clone();
        let far = Far::start_with(move |builder| {
            let map = tower::util::MapRequestLayer::new(move |request: http::Request<Body>| {
                request.map(|body| watched.watch(body))
            });
            builder.layer(map).build()
        })
        .await;
        let [sent, received] = outer.clone();
        let service = far
            .handler
            .service()
            .map_request(move |request: http::Request<Body>| request.map(|body| sent.watch(body)))
            .map_response(move |response: http::Response<Body>| {
                response.map(|body| received.watch(body))
            });
        let tunnel = tunnel_client::ForwardTunnel::new(service).open().await;
        let tunnel = tunnel.expect("the service accepts a tunnel");
        let watched = inner[0].clone();
        let channel = tunnel
            .clone()
            .map_response(move |response| response.map(|body| watched.watch(Body::new(body))));
        let client = TestServiceClient::new(TestChannel::new(channel));
        for kind in Kind::ALL {
            for size in [0, 1, 16_384, 200_000] {
                let script = Script::named("watched").receive_all().summarize();
                let more = kind.responses(5) - 1;
                let script = script.send(more, size, 1);
                let sent = tunnel_conformance::payload::requests(1, kind.requests(5), size);
                run(&client, kind, &script, sent).await.expect_success();
            }
            let script = Script::named("fails").receive(1).fail(Code::Aborted, "");
            let outcome = run(&client, kind, &script, one_request()).await;
            outcome.expect_failure(Code::Aborted);
        }
        for seen in outer.iter().chain(&inner) {
            assert!(seen.data.load(Ordering::Relaxed) > 20);
            assert_eq!(seen.empty.load(Ordering::Relaxed), 0);
        }
    })
    .await;
}

/// A stream that uses up tokio's budget must not end early or lose a wake-up.
#[tokio::test(flavor = "multi_thread")]
async fn streams_that_use_up_tokio_s_budget_arrive_whole() {
    guarded(async {
        let feed = || {
            let (send, receive) = tokio::sync::mpsc::channel(1000);
            for _ in 0..1000 {
                send.try_send(data(message(b"x"))).expect("room");
            }
            tokio_stream::wrappers::ReceiverStream::new(receive)
        };
        let (_far, tunnel) = far_with(answers(move |request| async move {
            let (bytes, _) = read_all(request.into_body()).await;
            assert_eq!(bytes.len(), 6000);
            let end = stream::iter(vec![status("0")]);
            response(Body::new(Pieces::new(feed().chain(end))))
        }))
        .await;
        let (bytes, end) = raw_outcome(&tunnel, Body::new(Pieces::new(feed()))).await;
        assert_eq!((bytes.len(), end.code()), (6000, Code::Ok), "{end:?}");
    })
    .await;
}
