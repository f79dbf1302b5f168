//! Calls that do not move, and their errors.

use futures::future::poll_immediate;
use tokio::sync::mpsc;
use tonic::Code;
use tunnel_conformance::Kind;
use tunnel_conformance::client::{call, run};
use tunnel_conformance::proto::Script;
use tunnel_core::NOT_PROCESSED_KEY;
use tunnel_server::{WhenNoTunnel, is_safe_to_retry};

use crate::support::by_hand::peer::{Heard, md};
use crate::support::by_hand::{self, going_away, refuse};
use crate::support::moving::{How, Requests, first_by_hand, hear_messages, whole_call};
use crate::support::{
    a_call, callable, client, eventually, guarded, handler, local_device, one_request,
};

/// The tunnel may have processed the call.
#[tokio::test(flavor = "multi_thread")]
async fn a_sent_call_does_not_move_and_its_error_says_so() {
    guarded(async {
        for kind in Kind::ALL {
            for lost in [true, false] {
                let (handler, channel, mut device) = first_by_hand().await;
                let client = client(&channel);
                let call = tokio::spawn(whole_call(client, kind));
                let id = device.expect_call().await;
                let other = local_device(&handler, "device-7").await;
                if lost {
                    device.stop_listening();
                } else {
                    // The device drains and would finish this call, which never ends.
                    going_away(&device, id);
                    device.finish();
                }
                let outcome = call.await.expect("no panic");
                let status = outcome.expect_failure(Code::Unavailable);
                let message = status.message();
                assert!(
                    message.contains("was sent and may have been processed"),
                    "{message}"
                );
                assert!(!is_safe_to_retry(status));
                assert_eq!(other.probe.record(&format!("{kind:?}")).started, 0);
            }
        }
    })
    .await;
}

/// The mark counts only with UNAVAILABLE (draining) or RESOURCE_EXHAUSTED (full), and only before
/// the response headers.
#[tokio::test(flavor = "multi_thread")]
async fn the_mark_of_an_unprocessed_call_counts_only_with_two_codes_before_headers() {
    guarded(async {
        let marked = || md(&[(NOT_PROCESSED_KEY, "1")]);
        for code in [Code::Internal, Code::OutOfRange, Code::FailedPrecondition] {
            let (handler, channel, mut device) = first_by_hand().await;
            let call = tokio::spawn(whole_call(client(&channel), Kind::Unary));
            let id = device.expect_call().await;
            let other = local_device(&handler, "device-7").await;
            device.close(id, code, marked());
            let outcome = call.await.expect("no panic");
            outcome.expect_failure(code);
            assert_eq!(other.probe.record("Unary").started, 0);
        }
        let (handler, channel, mut device) = first_by_hand().await;
        let call = tokio::spawn(whole_call(client(&channel), Kind::Unary));
        let id = device.expect_call().await;
        let other = local_device(&handler, "device-7").await;
        device.response_headers(id, md(&[]));
        device.close(id, Code::Unavailable, marked());
        let outcome = call.await.expect("no panic");
        let status = outcome.expect_failure(Code::Unavailable);
        assert!(!is_safe_to_retry(status));
        // The application does not see the mark.
        assert!(status.metadata().get(NOT_PROCESSED_KEY).is_none());
        assert_eq!(other.probe.record("Unary").started, 0);
    })
    .await;
}

/// Otherwise a handler that forwards such an error would be run again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_cannot_mark_its_call_as_not_processed() {
    guarded(async {
        let handler = handler(|builder| builder);
        let mut devices = Vec::new();
        for _ in 0..2 {
            devices.push(local_device(&handler, "device-7").await);
        }
        let script = Script::named("says so")
            .receive_all()
            .trailer(NOT_PROCESSED_KEY, "1")
            .fail(Code::Unavailable, "not me");
        let channel = handler.key_as_channel("device-7");
        for kind in Kind::ALL {
            let outcome = run(&client(&channel), kind, &script, one_request()).await;
            let status = outcome.expect_failure(Code::Unavailable);
            assert_eq!(status.message(), "not me");
        }
        let started = devices.iter().map(|d| d.probe.record("says so").started);
        assert_eq!(started.sum::<u64>(), 4);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_beyond_its_retry_buffer_does_not_move_and_its_error_says_so() {
    guarded(async {
        for (keep, moves) in [(0, false), (1000, false), (20_000, true)] {
            let (handler, channel, mut first) = first_by_hand().await;
            let (feed, requests) = Requests::new();
            let script = Script::named("kept").receive_all().summarize();
            let client = client(&channel.retry_buffer_limit(keep));
            let call = tokio::spawn(async move {
                call(&client, Kind::ClientStream, script.request(requests)).await
            });
            // The messages are sent one by one, so that they are separate pieces.
            for n in 0..4 {
                feed.send(n, 600);
                hear_messages(&mut first, 1).await;
            }
            let second = local_device(&handler, "device-7").await;
            refuse(&first, 1);
            drop(feed);
            let outcome = call.await.expect("no panic");
            if moves {
                outcome.expect_success();
                continue;
            }
            let status = outcome.expect_failure(Code::Unavailable);
            let message = status.message();
            assert!(message.contains("could not be retried"), "{message}");
            assert!(
                message.contains("more of its request was read than is kept"),
                "{message}"
            );
            // The application may retry the call with the whole request.
            assert!(is_safe_to_retry(status));
            assert_eq!(second.probe.record("kept").started, 0);
        }
    })
    .await;
}

/// A request that fails ends its call, on any tunnel.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_request_fails_does_not_move() {
    use crate::support::by_hand::body::{Pieces, data, message};
    use tower::Service as _;
    guarded(async {
        let (handler, mut channel, mut first) = first_by_hand().await;
        // The error of a call on another tunnel, whose response is forwarded as this request.
        let elsewhere = handler.key_as_channel("nobody");
        let movable = {
            let (handler, channel, mut device) = first_by_hand().await;
            let call = tokio::spawn(whole_call(client(&channel), Kind::Unary));
            let id = device.expect_call().await;
            refuse(&device, id);
            drop(handler);
            let outcome = call.await.expect("no panic");
            outcome.expect_failure(Code::Unavailable).clone()
        };
        assert!(is_safe_to_retry(&movable));
        drop(elsewhere);
        let body = Pieces::all(vec![data(message(b"one")), Err(movable)]);
        let request = http::Request::post("/any.Service/Any").body(body);
        let call = channel.call(request.expect("legal"));
        let second = local_device(&handler, "device-7").await;
        let error = call.await.expect_err("the request fails");
        assert_eq!(error.code(), Code::Unavailable);
        assert!(!error.message().contains("could not be retried"), "{error}");
        assert_eq!(second.tunnel.stats().streams_total, 0);
        assert!(matches!(
            poll_immediate(Box::pin(first.hear())).await,
            None | Some(Heard::Frame(_))
        ));
    })
    .await;
}

/// The error names the key and the last tunnel's reason.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_finds_no_other_tunnel_says_so() {
    guarded(async {
        for how in [How::Refused, How::Draining, How::Lost] {
            let (handler, channel, device) = first_by_hand().await;
            let call = tokio::spawn(whole_call(client(&channel), Kind::Unary));
            eventually(|| handler.stats().iter().any(|(_, stats)| stats.streams == 1)).await;
            let _device = how.happens(&handler, device).await;
            let outcome = call.await.expect("no panic");
            let status = outcome.expect_failure(Code::Unavailable);
            let message = status.message();
            assert!(
                message.contains("for key \"device-7\""),
                "{how:?}: {message}"
            );
            assert!(
                message.contains("did not take the call"),
                "{how:?}: {message}"
            );
            assert!(is_safe_to_retry(status), "{how:?}");
        }
    })
    .await;
}

/// After 32 moves a call fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_refused_repeatedly_fails() {
    guarded(async {
        let handler = handler(|builder| builder);
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut devices = tokio::task::JoinSet::new();
        for _ in 0..40 {
            let mut device = by_hand::device(handler.service(), "device-7").await;
            let tell = tell.clone();
            devices.spawn(async move {
                loop {
                    let id = device.expect_call().await;
                    let _ = tell.send(());
                    refuse(&device, id);
                }
            });
        }
        callable(&handler, 40).await;
        let channel = handler
            .key_as_channel("device-7")
            .when_no_tunnel(WhenNoTunnel::Wait);
        let outcome = a_call(&channel, "refused").await;
        assert!(is_safe_to_retry(outcome.expect_failure(Code::Unavailable)));
        let tries = std::iter::from_fn(|| told.try_recv().ok()).count();
        assert_eq!(tries, 33, "the first, and 32 moves");
        devices.shutdown().await;
    })
    .await;
}
