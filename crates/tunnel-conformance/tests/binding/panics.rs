//! A panic in user code ends only its own call.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::StreamExt as _;
use futures::stream;
use tonic::body::Body;
use tonic::service::interceptor::InterceptorLayer;
use tonic::{Code, Request};
use tower::Service;
use tower::layer::layer_fn;
use tunnel_client::{ForwardTunnel, TunnelChannel};
use tunnel_server::TunnelServiceHandler;

use crate::support::body::{Pieces, data, message, status};
use crate::support::raw_service::{RawService, answers, raw_call, raw_outcome, response};
use crate::support::{Far, assert_usable, client, eventually, guarded};

async fn far_with(service: RawService) -> (Far, TunnelChannel) {
    let far = Far::start_with(|builder| builder.add_service(service).build()).await;
    let tunnel = far.tunnel().await;
    (far, tunnel)
}

/// Panics unless the call has ended, the tunnel still works, and nothing of the call is left.
async fn assert_alone(far: &Far, tunnel: &TunnelChannel) {
    assert_usable(&client(tunnel)).await;
    eventually(|| far.handler.kept_calls() == 0 && tunnel.kept_calls() == 0).await;
    assert_eq!(far.handler.tunnels().len(), 1);
    eventually(|| far.handler.stats()[0].1.streams == 0).await;
}

/// Panics when it is dropped.
struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("injected panic in a drop");
    }
}

/// A future that panics when it is dropped, not while it runs.
struct Bomb<F> {
    future: Pin<Box<F>>,
    _fuse: PanicsOnDrop,
}

impl<F: Future> Bomb<F> {
    fn new(future: F) -> Self {
        Self {
            future: Box::pin(future),
            _fuse: PanicsOnDrop,
        }
    }
}

impl<F: Future> Future for Bomb<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.future.as_mut().poll(cx)
    }
}

/// A service that panics in `poll_ready` or in `call`.
#[derive(Clone)]
struct Panicking {
    when_called: bool,
}

impl Service<http::Request<Body>> for Panicking {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = std::future::Pending<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        assert!(self.when_called, "injected panic in poll_ready");
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        panic!("injected panic in call");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_the_service_itself_is_internal() {
    guarded(async {
        for when_called in [false, true] {
            let handler = TunnelServiceHandler::builder()
                .layer(layer_fn(move |_| Panicking { when_called }))
                .build();
            let tunnel = ForwardTunnel::new(handler.service()).open().await;
            let tunnel = tunnel.expect("the service accepts a tunnel");
            for _ in 0..3 {
                let (_, status) = raw_outcome(&tunnel, Body::empty()).await;
                assert_eq!(status.code(), Code::Internal, "{status:?}");
            }
            eventually(|| handler.kept_calls() == 0).await;
            assert!(tunnel.is_ready());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_the_handler_s_future_is_internal() {
    guarded(async {
        let (far, tunnel) = far_with(answers(|_| async {
            tokio::task::yield_now().await;
            panic!("injected panic in a future");
        }))
        .await;
        let (_, status) = raw_outcome(&tunnel, Body::empty()).await;
        assert_eq!(status.code(), Code::Internal, "{status:?}");
        assert!(status.message().contains("panicked"), "{status:?}");
        assert_alone(&far, &tunnel).await;
    })
    .await;
}

/// The panic comes at once, or after a message was sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_the_response_stream_is_internal() {
    guarded(async {
        for sent in [0, 1] {
            let (far, tunnel) = far_with(answers(move |_| async move {
                let first: Vec<_> = (0..sent).map(|_| data(message(b"first"))).collect();
                let panics = stream::once(async {
                    tokio::task::yield_now().await;
                    panic!("injected panic in a body")
                });
                response(Body::new(Pieces::new(stream::iter(first).chain(panics))))
            }))
            .await;
            let (_, status) = raw_outcome(&tunnel, Body::empty()).await;
            assert_eq!(status.code(), Code::Internal, "{status:?}");
            assert_alone(&far, &tunnel).await;
        }
    })
    .await;
}

/// The answer was ready, but its handler panicked before it could be sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_drop_of_a_handler_that_has_answered_is_internal() {
    guarded(async {
        let (far, tunnel) = far_with(answers(|_| {
            Bomb::new(async { response(Pieces::all(vec![status("0")])) })
        }))
        .await;
        let (_, status) = raw_outcome(&tunnel, Body::empty()).await;
        assert_eq!(status.code(), Code::Internal, "{status:?}");
        assert_alone(&far, &tunnel).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_drop_of_a_cancelled_handler_ends_nothing_else() {
    guarded(async {
        let started = Arc::new(tokio::sync::Notify::new());
        let notify = started.clone();
        let (far, tunnel) = far_with(answers(move |_| {
            let notify = notify.clone();
            Bomb::new(async move {
                notify.notify_one();
                std::future::pending().await
            })
        }))
        .await;
        let call = tokio::spawn({
            let tunnel = tunnel.clone();
            async move { raw_outcome(&tunnel, Body::empty()).await }
        });
        started.notified().await;
        call.abort();
        assert_alone(&far, &tunnel).await;
    })
    .await;
}

/// The whole response was sent, so the panic has no effect.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_drop_of_a_response_that_was_sent_changes_nothing() {
    guarded(async {
        let (far, tunnel) = far_with(answers(|_| async {
            let pieces = vec![data(message(b"whole")), status("0")];
            let fuse = Arc::new(PanicsOnDrop);
            let pieces = stream::iter(pieces).map(move |piece| {
                let _keeps = &fuse;
                piece
            });
            response(Body::new(Pieces::new(pieces)))
        }))
        .await;
        let (bytes, status) = raw_outcome(&tunnel, Body::empty()).await;
        assert_eq!((bytes, status.code()), (message(b"whole"), Code::Ok));
        assert_alone(&far, &tunnel).await;
    })
    .await;
}

/// An extension of the opening request that panics when it is cloned.
#[derive(Default)]
struct PanicsOnClone(Arc<AtomicUsize>);

impl Clone for PanicsOnClone {
    fn clone(&self) -> Self {
        if self.0.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            panic!("injected panic in a clone");
        }
        Self(self.0.clone())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_copy_of_an_extension_is_internal() {
    guarded(async {
        let far = Far::start().await;
        let layer = InterceptorLayer::new(|mut request: Request<()>| {
            request.extensions_mut().insert(PanicsOnClone::default());
            Ok(request)
        });
        let service = tower::Layer::layer(&layer, far.handler.service());
        let tunnel = ForwardTunnel::new(service).open().await;
        let tunnel = tunnel.expect("the service accepts a tunnel");
        // Every other clone panics, and fails its call.
        let (_, status) = raw_outcome(&tunnel, Body::empty()).await;
        assert_eq!(status.code(), Code::Internal, "{status:?}");
        assert_alone(&far, &tunnel).await;
    })
    .await;
}

/// Covers a call that only the tunnel polls.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_a_request_stream_fails_its_call() {
    guarded(async {
        let (far, tunnel) = far_with(answers(|request| async {
            // Answers when the request ends, which is never.
            response(request.into_body())
        }))
        .await;
        let go_on = Arc::new(tokio::sync::Notify::new());
        let panics = {
            let go_on = go_on.clone();
            stream::once(async move {
                go_on.notified().await;
                panic!("injected panic in a request")
            })
        };
        let pieces = stream::iter(vec![data(message(b"first"))]).chain(panics);
        let response = raw_call(&tunnel, Body::new(Pieces::new(pieces))).await;
        let mut body = response.expect("headers come").into_body();
        let first = poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await;
        let first = first.expect("a frame").expect("data").into_data();
        assert_eq!(first.expect("data"), message(b"first"));
        go_on.notify_one();
        let next = poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await;
        let status = next.expect("an error").expect_err("an error");
        assert_eq!(status.code(), Code::Internal, "{status:?}");
        drop(body);
        assert_alone(&far, &tunnel).await;
    })
    .await;
}
