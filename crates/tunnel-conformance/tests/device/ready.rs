//! A device is connected once its gateway routes calls to it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame};
use http_body_util::StreamBody;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tower::service_fn;
use tower::util::MapResponse;
use tunnel_client::{
    Config, EndReason, Gateway, LinksHandle, ReverseTunnelServer, ReverseTunnelServerBuilder,
    TunnelError, TunnelEvent,
};
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::{Client, TestChannel};
use tunnel_core::Offer;
use tunnel_server::{AffinityKey, Opening, TunnelServiceHandler};
use tunnel_tonic::outer::{put_offer, put_ready};
use tunnel_tonic::{Direction, NetworkRole, Tunnel, TunnelInfo};

use crate::support::{Running, TestGateway, assert_usable, device, eventually, guarded};

/// A device of its own for each round, and the client that calls it by its name.
fn in_round(
    gateway: &TestGateway,
    dialled: Gateway,
    round: usize,
) -> (ReverseTunnelServer, LinksHandle, Client) {
    let mut metadata = MetadataMap::new();
    metadata.insert("device", round.into());
    let device = device(dialled).0.metadata(metadata).build();
    let handle = device.handle();
    let channel = gateway.handler.key_as_channel(round.to_string());
    (
        device,
        handle,
        TestServiceClient::new(TestChannel::new(channel)),
    )
}

async fn by_number() -> TestGateway {
    let key = |opening: &Opening| opening.metadata_str("device").map(AffinityKey::from);
    TestGateway::start_with(|builder| builder.affinity_key(key)).await
}

/// Each call of a channel without a tunnel would fail at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_right_after_a_device_is_connected_finds_its_tunnel() {
    guarded(async {
        let gateway = by_number().await;
        for round in 0..200 {
            let dialled = match round % 2 {
                0 => Gateway::from(gateway.endpoint()),
                _ => Gateway::over(gateway.handler.service()),
            };
            let (device, handle, client) = in_round(&gateway, dialled, round);
            // Half of them serve a single tunnel.
            let running = match round / 2 % 2 {
                0 => tokio::spawn(async move { _ = device.run().await }),
                _ => tokio::spawn(async move { _ = device.serve().await }),
            };
            assert_eq!(handle.connected().await, Ok(()));
            assert_usable(&client).await;
            assert_eq!(handle.links().len(), 1);
            handle.close().await;
            running.await.expect("no panic");
        }
    })
    .await;
}

/// The hook of the gateway runs when the tunnel takes calls, and before the device is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_not_connected_before_its_gateway_lists_the_tunnel() {
    guarded(async {
        let device_handle = Arc::new(OnceLock::<LinksHandle>::new());
        let (seen, mut states) = mpsc::unbounded_channel();
        let handle = device_handle.clone();
        let gateway = TestGateway::start_with(|builder| {
            builder.on_open(move |_| {
                let handle = handle.get().expect("set before it runs");
                let connected = handle.links().iter().any(|link| link.is_connected());
                let _ = seen.send(connected);
            })
        })
        .await;
        let server = device(gateway.endpoint()).0.build();
        device_handle.set(server.handle()).expect("set once");
        let device = Running::start(server);
        assert_eq!(device.handle.connected().await, Ok(()));
        assert_eq!(states.recv().await, Some(false));
    })
    .await;
}

/// A body that sends nothing and keeps something.
fn silent(kept: impl Send + 'static) -> Body {
    let nothing = futures::stream::unfold(kept, |kept| async move {
        let _kept = kept;
        std::future::pending::<Option<(Result<Frame<Bytes>, Status>, _)>>().await
    });
    Body::new(StreamBody::new(nothing))
}

/// The observer of a gateway's tunnel adds it to the pools. While it runs, the transport finds nothing to send.
#[tokio::test]
async fn a_gateway_announces_a_tunnel_only_after_its_observer_has_returned() {
    guarded(async {
        let new = |role| {
            let info = TunnelInfo::new(Direction::Reverse, MetadataMap::new(), None, None);
            Tunnel::new(role, Config::default(), info)
        };
        let (_device, settings, device_inbound) = new(NetworkRole::Client);
        let (gateway, outbound, inbound) = new(NetworkRole::Server);
        let mut offer = Offer::of(&Config::default());
        offer.ready = true;
        device_inbound.start(offer, silent(()), None, ());
        let outbound = Arc::new(Mutex::new(outbound));
        let sends = move || {
            let mut outbound = outbound.lock().expect("not poisoned");
            let frame =
                Pin::new(&mut *outbound).poll_frame(&mut Context::from_waker(Waker::noop()));
            frame.is_ready()
        };
        let (tell, mut told) = mpsc::unbounded_channel();
        let (observed, sends_now) = (gateway.clone(), sends.clone());
        gateway.on_change(move || {
            let _ = tell.send((observed.is_ready(), sends_now()));
        });
        inbound.start(offer, Body::new(settings), None, ());
        assert_eq!(told.recv().await, Some((true, false)));
        eventually(sends).await;
    })
    .await;
}

/// A gateway that accepts tunnels and sends nothing.
fn mute(announces: bool) -> Gateway {
    Gateway::over(service_fn(move |request: http::Request<Body>| async move {
        let mut response = http::Response::new(silent(request));
        put_offer(&Config::default(), response.headers_mut());
        if announces {
            put_ready(response.headers_mut());
        }
        Ok::<_, Status>(response)
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_promises_to_say_when_it_routes_calls_is_waited_for_until_the_open_timeout()
{
    guarded(async {
        let timeout = Duration::from_millis(20);
        let error = device(mute(true)).0.open_timeout(timeout).serve().await;
        let timed_out = matches!(error, Err(TunnelError::Timeout(after)) if after == timeout);
        assert!(timed_out, "{error:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_does_not_say_when_it_routes_calls_counts_as_connected_when_it_accepts() {
    guarded(async {
        let device = Running::start(device(mute(false)).0.build());
        assert_eq!(device.handle.connected().await, Ok(()));
    })
    .await;
}

/// How long the old tunnel goes on after its replacement has opened.
async fn handover(gateway: impl FnOnce(&TunnelServiceHandler) -> Gateway) -> Duration {
    let (open, mut opened) = mpsc::unbounded_channel();
    let handler = TunnelServiceHandler::builder()
        .on_open(move |tunnel| {
            let _ = open.send(tunnel.clone());
        })
        .build();
    let builder: ReverseTunnelServerBuilder = ReverseTunnelServer::builder(gateway(&handler));
    let _device = Running::start(builder.max_tunnel_age(Duration::from_secs(60)).build());
    let old = opened.recv().await.expect("the gateway lives");
    opened.recv().await.expect("the gateway lives");
    let replaced = Instant::now();
    old.closed().await;
    replaced.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_is_drained_as_soon_as_its_gateway_routes_calls_to_the_replacement() {
    let at_once = handover(|handler| Gateway::over(handler.service())).await;
    assert_eq!(at_once, Duration::ZERO);
    let later = handover(|handler| {
        let silent = |mut response: http::Response<Body>| {
            response.headers_mut().remove(tunnel_core::READY_HEADER);
            response
        };
        Gateway::over(MapResponse::new(handler.service(), silent))
    });
    assert!(later.await >= Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_tunnel_ends_before_calls_are_routed_to_it_was_not_connected() {
    guarded(async {
        let gateway = Gateway::over(service_fn(|_: http::Request<Body>| async {
            let trailers = Status::unavailable("not today").into_http::<Body>();
            let trailers = Frame::<Bytes>::trailers(trailers.headers().clone());
            let end = futures::stream::iter([Ok::<_, Status>(trailers)]);
            let mut response = http::Response::new(Body::new(StreamBody::new(end)));
            put_offer(&Config::default(), response.headers_mut());
            put_ready(response.headers_mut());
            Ok::<_, Status>(response)
        }));
        let device = ReverseTunnelServer::builder(gateway).build();
        let mut events = device.handle().events();
        let served = device.serve().await;
        assert!(matches!(served, Ok(EndReason::Error(_))), "{served:?}");
        let event = futures::StreamExt::next(&mut events).await;
        assert!(
            matches!(&event, Some(TunnelEvent::NotOpened { error, .. }) if matches!(error, TunnelError::Ended(_))),
            "{event:?}"
        );
    })
    .await;
}
