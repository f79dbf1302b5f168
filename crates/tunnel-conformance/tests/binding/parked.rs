//! A request body that waits gets no task until it is woken.

use std::sync::Arc;
use std::task::Poll;

use futures::channel::mpsc;
use futures::stream;
use tonic::body::Body;
use tunnel_client::TunnelChannel;

use crate::support::body::{Piece, Pieces, data, message, read_all};
use crate::support::raw_service::{answers, raw_call, response};
use crate::support::{Far, assert_usable, client, eventually, guarded};

/// A far end that echoes the request's messages.
async fn echoing() -> (Far, TunnelChannel) {
    let echo = answers(|request| std::future::ready(response(request.into_body())));
    let far = Far::start_with(|builder| builder.add_service(echo).build()).await;
    let tunnel = far.tunnel().await;
    (far, tunnel)
}

async fn nothing_left(far: &Far, tunnel: &TunnelChannel) {
    nothing_left_but(far, tunnel, 0).await;
}

async fn nothing_left_but(far: &Far, tunnel: &TunnelChannel, calls: usize) {
    assert_usable(&client(tunnel)).await;
    eventually(|| far.handler.kept_calls() == calls && tunnel.kept_calls() == calls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_waits_goes_on_when_a_thread_of_no_runtime_wakes_it() {
    guarded(async {
        let (far, tunnel) = echoing().await;
        let (sender, pieces) = mpsc::unbounded::<Piece>();
        let call = raw_call(&tunnel, Body::new(Pieces::new(pieces)));
        let sending = std::thread::spawn(move || {
            for part in 0..100 {
                let sent = sender.unbounded_send(data(message(&[part; 9])));
                sent.expect("somebody reads");
                std::thread::yield_now();
            }
        });
        let body = call.await.expect("headers").into_body();
        let (bytes, _) = read_all(body).await;
        let expected: Vec<u8> = (0..100).flat_map(|part| message(&[part; 9])).collect();
        assert_eq!(bytes, expected);
        sending.join().expect("no panic");
        nothing_left(&far, &tunnel).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_wakes_itself_at_every_poll_reaches_its_end() {
    guarded(async {
        let (far, tunnel) = echoing().await;
        let mut polls = 0;
        let restless = stream::poll_fn(move |cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            match polls {
                30 => Poll::Ready(None),
                n if n % 3 == 0 => Poll::Ready(Some(data(message(b"x")))),
                _ => Poll::Pending,
            }
        });
        let call = raw_call(&tunnel, Body::new(Pieces::new(restless)));
        let (bytes, _) = read_all(call.await.expect("headers").into_body()).await;
        assert_eq!(bytes, message(b"x").repeat(9));
        nothing_left(&far, &tunnel).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_waits_for_ever_is_dropped_when_its_call_or_its_tunnel_ends() {
    guarded(async {
        let (far, tunnel) = echoing().await;
        let held = Arc::new(());
        let waiting = || {
            let held = held.clone();
            let for_ever = stream::poll_fn(move |_| {
                let _held = &held;
                Poll::Pending
            });
            raw_call(&tunnel, Body::new(Pieces::new(for_ever)))
        };
        let cancelled = waiting().await.expect("headers");
        let lost = waiting().await.expect("headers");
        assert_eq!(Arc::strong_count(&held), 3);
        drop(cancelled);
        eventually(|| Arc::strong_count(&held) == 2).await;
        nothing_left_but(&far, &tunnel, 1).await;
        tunnel.close().await;
        eventually(|| Arc::strong_count(&held) == 1).await;
        drop(lost);
        eventually(|| tunnel.kept_calls() == 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_panics_when_it_is_polled_again_ends_its_own_call() {
    guarded(async {
        let (far, tunnel) = echoing().await;
        let mut polls = 0;
        let panics = stream::poll_fn(move |_| {
            polls += 1;
            assert!(polls < 2, "injected panic in a request body");
            Poll::<Option<Piece>>::Pending
        });
        let outcome = raw_call(&tunnel, Body::new(Pieces::new(panics))).await;
        let status = match outcome {
            Err(status) => status,
            Ok(response) => {
                let (_, end) = read_all(response.into_body()).await;
                end.expect_err("the request was cut")
            }
        };
        assert_eq!(status.code(), tonic::Code::Internal, "{status:?}");
        nothing_left(&far, &tunnel).await;
    })
    .await;
}
