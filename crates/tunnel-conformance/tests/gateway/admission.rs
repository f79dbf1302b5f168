//! The admission hook: its decisions, and openings that wait for it.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use tokio::sync::{Semaphore, mpsc};
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Request, Status};
use tunnel_client::{ForwardTunnel, TunnelError};
use tunnel_conformance::metadata::every_byte;
use tunnel_conformance::{Probe, TcpServer};
use tunnel_server::{AffinityKey, Direction, Opening, TunnelServiceHandler};

use crate::support::device::Dial;
use crate::support::{
    Gateway, NEVER, assert_usable, by_name, eventually, guarded, handler, no_tunnels, ready,
};

fn dial(name: &str) -> Dial {
    Dial::new(&Probe::default()).named(name)
}

/// The status a device is refused with.
async fn refused(gateway: &Gateway, name: &str) -> Status {
    let refused = dial(name).dial(gateway.connect().await).await;
    refused.err().expect("the gateway refuses")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hook_sees_what_is_known_of_a_tunnel_of_either_direction() {
    guarded(async {
        let (saw, mut seen) = mpsc::unbounded_channel();
        let handler = handler(|builder| {
            builder.admit(move |opening: Opening| {
                let saw = saw.clone();
                async move {
                    // The hook waits, like one that asks a remote service.
                    tokio::task::yield_now().await;
                    let _ = saw.send(opening);
                    Ok(())
                }
            })
        });
        let mark = |mut request: Request<()>| -> Result<Request<()>, Status> {
            request.extensions_mut().insert(7_u32);
            Ok(request)
        };
        let routes = Routes::new(InterceptedService::new(handler.service(), mark));
        let server = TcpServer::start(tonic::transport::Server::builder(), routes).await;
        let device = dial("device-7").dial(server.channel().await).await;
        let device = device.expect("admitted");
        let forward = ForwardTunnel::new(server.channel().await).open().await;
        let forward = forward.expect("admitted");
        for (direction, key) in [
            (Direction::Reverse, Some(AffinityKey::from("device-7"))),
            (Direction::Forward, None),
        ] {
            let opening = seen.recv().await.expect("it was asked");
            assert_eq!(opening.direction(), direction);
            assert_eq!(opening.key(), key.as_ref());
            assert_eq!(opening.metadata_str("device").map(AffinityKey::from), key);
            assert_eq!(
                opening
                    .metadata()
                    .get("grpctunnel-negotiate")
                    .expect("sent"),
                "on"
            );
            assert!(
                opening
                    .peer_addr()
                    .is_some_and(|peer| peer.ip().is_loopback())
            );
            assert_eq!(opening.extensions().get(), Some(&7_u32));
            let text = format!("{opening:?}");
            assert!(!text.contains("negotiate"), "no metadata in logs: {text}");
        }
        let channel = handler.as_channel();
        ready(&handler, &device).await;
        assert_usable(&channel).await;
        drop(forward);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_the_device_and_leaves_nothing() {
    guarded(async {
        let opened = Arc::new(AtomicUsize::new(0));
        let told = opened.clone();
        let gateway = Gateway::start_with(|builder| {
            builder
                .max_tunnels(1)
                .max_tunnels_per_key(1)
                .on_open(move |_| {
                    told.fetch_add(1, Ordering::Relaxed);
                })
                .admit(|opening: Opening| async move {
                    match opening.key() {
                        Some(key) if key.as_str() == "welcome" => Ok(()),
                        _ => Err(Status::with_details(
                            Code::PermissionDenied,
                            "who are you?",
                            every_byte().into(),
                        )),
                    }
                })
        })
        .await;
        let handler = &gateway.handler;
        for name in ["stranger", "welcome not"] {
            let status = refused(&gateway, name).await;
            assert_eq!(status.code(), Code::PermissionDenied);
            assert_eq!(status.message(), "who are you?");
            assert_eq!(status.details(), every_byte());
            assert!(handler.tunnels().is_empty());
            assert_eq!(handler.kept_keys(), 0);
        }
        let forward = ForwardTunnel::new(gateway.connect().await).open().await;
        let Err(TunnelError::Refused(status)) = forward else {
            panic!("expected a refusal, got {forward:?}");
        };
        assert_eq!(status.code(), Code::PermissionDenied);
        // No event was emitted for refused openings.
        let device = gateway.device("welcome").await;
        eventually(|| opened.load(Ordering::Relaxed) == 1).await;
        drop(device);
    })
    .await;
}

/// Reports when it is dropped.
struct Dropped(mpsc::UnboundedSender<&'static str>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send("dropped");
    }
}

/// A hook that admits the key "welcome" and never decides about others.
fn undecided(
    tell: mpsc::UnboundedSender<&'static str>,
) -> impl Fn(Opening) -> BoxFuture<'static, Result<(), Status>> + Send + Sync + 'static {
    move |opening| {
        if opening.key().is_some_and(|key| key.as_str() == "welcome") {
            return async { Ok(()) }.boxed();
        }
        let dropped = Dropped(tell.clone());
        let _ = tell.send("asked");
        async move {
            let _dropped = dropped;
            pending().await
        }
        .boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_gives_up_while_it_waits_to_be_admitted_leaves_nothing() {
    guarded(async {
        let (tell, mut told) = mpsc::unbounded_channel();
        let gateway = Gateway::start_with(|builder| builder.admit(undecided(tell))).await;
        let handler = &gateway.handler;
        let mut events = handler.events();
        let there = gateway.server.runtime().expect("it lives");
        let channel = gateway.connect().await;
        let waiting = tokio::spawn(dial("device-7").dial(channel.clone()));
        assert_eq!(told.recv().await, Some("asked"));
        assert!(
            handler.tunnels().is_empty(),
            "not listed before it is admitted"
        );
        assert_eq!(handler.kept_keys(), 0);
        waiting.abort();
        assert_eq!(told.recv().await, Some("dropped"));
        assert!(handler.tunnels().is_empty());
        // The connection still works, and no event was emitted for the opening that left.
        let device = dial("welcome").dial(channel).await.expect("admitted");
        let first = futures::StreamExt::next(&mut events).await;
        let Some(tunnel_server::TunnelEvent::Opened(info)) = first else {
            panic!("expected an opened tunnel, got {first:?}");
        };
        assert!(device.is(&info));
        device.hang_up();
        no_tunnels(handler).await;
        drop(device);
        // Only the server's own task remains.
        eventually(|| there.metrics().num_alive_tasks() <= 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openings_over_the_limit_are_refused_with_a_time_to_come_back_and_the_hook_is_not_asked() {
    guarded(async {
        let (tell, mut told) = mpsc::unbounded_channel();
        let gateway =
            Gateway::start_with(|builder| builder.max_openings_at_once(1).admit(undecided(tell)))
                .await;
        let waiting = tokio::spawn(dial("device-7").dial(gateway.connect().await));
        assert_eq!(told.recv().await, Some("asked"));
        for _ in 0..3 {
            let status = refused(&gateway, "device-8").await;
            assert_eq!(status.code(), Code::Unavailable);
            let pushback = status.metadata().get("grpc-retry-pushback-ms");
            let pushback = pushback.and_then(|millis| millis.to_str().ok()?.parse().ok());
            assert!(matches!(pushback, Some(50..=90_000)), "{status:?}");
        }
        assert!(told.try_recv().is_err());
        // The place of the one that gives up is free, after a moment.
        waiting.abort();
        assert_eq!(told.recv().await, Some("dropped"));
        let next = async || dial("welcome").dial(gateway.connect().await).await;
        let mut device = next().await;
        while device.is_err() {
            device = next().await;
        }
        ready(&gateway.handler, &device.expect("just checked")).await;
        // Each of them has left its place when its tunnel takes calls.
        for _ in 0..3 {
            gateway.device("welcome").await;
        }
    })
    .await;
}

/// Otherwise a credential that is revoked while its tunnel is admitted would leave the tunnel open.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_closed_while_its_tunnel_is_admitted_gets_no_tunnel() {
    guarded(async {
        let (asked, mut asks) = mpsc::unbounded_channel();
        let decide = Arc::new(Semaphore::new(0));
        let decided = decide.clone();
        let gateway = Gateway::start_with(|builder| {
            builder.admit(move |_| {
                let (decided, asked) = (decided.clone(), asked.clone());
                async move {
                    let _ = asked.send(());
                    decided.acquire().await.expect("never closed").forget();
                    Ok(())
                }
            })
        })
        .await;
        let dial = |name| {
            let name = dial(name);
            let gateway = &gateway;
            async move { name.dial(gateway.connect().await).await }
        };
        let mut both = Box::pin(futures::future::join(dial("revoked"), dial("other")));
        for _ in 0..2 {
            futures::future::select(&mut both, Box::pin(asks.recv())).await;
        }
        let status = Status::permission_denied("the token was revoked");
        assert_eq!(gateway.handler.close_key_with("revoked", status), 1);
        decide.add_permits(2);
        let (revoked, other) = both.await;
        let refused = revoked.err().expect("refused");
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert_eq!(refused.message(), "the token was revoked");
        other.expect("admitted");
        let keys: Vec<_> = gateway.handler.tunnels();
        assert!(
            keys.iter()
                .all(|tunnel| tunnel.key().is_some_and(|key| key.as_str() == "other"))
        );
    })
    .await;
}

/// Otherwise the device would block the server's shutdown.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_waits_to_be_admitted_is_refused_when_the_gateway_drains() {
    guarded(async {
        let (tell, mut told) = mpsc::unbounded_channel();
        let gateway = Gateway::start_with(|builder| builder.admit(undecided(tell))).await;
        let waiting = tokio::spawn(dial("device-7").dial(gateway.connect().await));
        assert_eq!(told.recv().await, Some("asked"));
        gateway.handler.drain(NEVER).await;
        let refused = waiting.await.expect("no panic").err().expect("refused");
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(refused.message().contains("draining"), "{refused}");
        assert_eq!(told.recv().await, Some("dropped"));
        // The hook is not called any more.
        let late = self::refused(&gateway, "device-8").await;
        assert_eq!(late.code(), Code::Unavailable);
        assert!(told.try_recv().is_err());
    })
    .await;
}

/// The other tunnels of the connection are not affected.
#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_panics_refuses_that_tunnel_alone() {
    guarded(async {
        let unlucky = |opening: &Opening, name: &str| opening.metadata_str("device") == Some(name);
        let handler = TunnelServiceHandler::builder()
            .affinity_key(move |opening: &Opening| {
                assert!(!unlucky(opening, "in the key"), "as the test wants it");
                by_name(opening)
            })
            .admit(move |opening: Opening| {
                assert!(!unlucky(&opening, "at once"), "as the test wants it");
                async move {
                    tokio::task::yield_now().await;
                    assert!(!unlucky(&opening, "later"), "as the test wants it");
                    Ok(())
                }
            })
            .build();
        let gateway = Gateway::serve(handler).await;
        let channel = gateway.connect().await;
        let device = dial("lucky").dial(channel.clone()).await.expect("admitted");
        ready(&gateway.handler, &device).await;
        for name in ["in the key", "at once", "later"] {
            let refused = dial(name).dial(channel.clone()).await;
            let refused = refused.err().expect("the hook panicked");
            assert_eq!(refused.code(), Code::Internal, "{name}: {refused}");
            assert!(!refused.message().contains("as the test"), "{refused}");
        }
        assert_eq!(gateway.handler.tunnels().len(), 1);
        assert_usable(&gateway.handler.key_as_channel("lucky")).await;
    })
    .await;
}

/// An allowed opening may still exceed a limit.
#[tokio::test(flavor = "multi_thread")]
async fn the_limits_are_checked_after_the_hook() {
    guarded(async {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let gateway = Gateway::start_with(|builder| {
            builder.max_tunnels(0).admit(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
                async { Ok(()) }
            })
        })
        .await;
        let status = refused(&gateway, "device-7").await;
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        gateway.handler.drain(Duration::ZERO).await;
    })
    .await;
}
