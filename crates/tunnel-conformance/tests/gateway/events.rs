//! The events of tunnels that open and close.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use futures::future::{join_all, poll_immediate};
use tokio::sync::mpsc;
use tonic::{Code, Status};
use tunnel_client::ForwardTunnel;
use tunnel_conformance::Probe;
use tunnel_core::EndReason;
use tunnel_server::{AcceptedTunnel, TunnelEvent, TunnelEvents, TunnelId, TunnelServiceHandler};

use crate::support::device::Dial;
use crate::support::{
    Gateway, NEVER, assert_usable, eventually, guarded, handler, local_device, no_tunnels, ready,
};

/// The events, in a form that can be compared.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    Opened(TunnelId),
    Closed(TunnelId, EndReason),
    NotOpened(TunnelId),
    Missed(u64),
}

fn told(event: &TunnelEvent) -> Told {
    match event {
        TunnelEvent::Opened(info) => Told::Opened(info.id()),
        TunnelEvent::Closed { info, reason, .. } => Told::Closed(info.id(), reason.clone()),
        TunnelEvent::NotOpened { info, .. } => Told::NotOpened(info.id()),
        TunnelEvent::Missed(count) => Told::Missed(*count),
        other => panic!("no event is of that kind: {other:?}"),
    }
}

async fn next(events: &mut TunnelEvents) -> Told {
    told(&events.next().await.expect("the handler lives"))
}

/// A handler whose callbacks record their events.
fn telling() -> (TunnelServiceHandler, mpsc::UnboundedReceiver<Told>) {
    let (tell, callbacks) = mpsc::unbounded_channel();
    let opened = tell.clone();
    let handler = handler(|builder| {
        builder
            .on_open(move |tunnel| {
                let _ = opened.send(Told::Opened(tunnel.id()));
            })
            .on_close(move |info, reason, _| {
                let _ = tell.send(Told::Closed(info.id(), reason.clone()));
            })
    });
    (handler, callbacks)
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_of_both_directions_emit_events_when_they_open_and_close() {
    guarded(async {
        let (handler, mut callbacks) = telling();
        let mut events = handler.events();
        let mut both = async || {
            let event = next(&mut events).await;
            assert_eq!(callbacks.recv().await, Some(event.clone()));
            event
        };
        let device = local_device(&handler, "device-7").await;
        let reverse = handler.tunnels()[0].id();
        assert_eq!(both().await, Told::Opened(reverse));
        let forward = ForwardTunnel::new(handler.service()).open().await;
        let forward = forward.expect("accepted");
        let id = handler.tunnels()[1].id();
        assert_eq!(both().await, Told::Opened(id));
        device.hang_up();
        assert_eq!(both().await, Told::Closed(reverse, EndReason::PeerClosed));
        forward.close().await;
        assert_eq!(both().await, Told::Closed(id, EndReason::PeerClosed));
    })
    .await;
}

/// The reason is from the gateway's point of view.
#[tokio::test(flavor = "multi_thread")]
async fn the_close_event_has_the_reason() {
    guarded(async {
        let (handler, mut callbacks) = telling();
        let mut closed = async |tunnel: &AcceptedTunnel| {
            assert_eq!(callbacks.recv().await, Some(Told::Opened(tunnel.id())));
            match callbacks.recv().await {
                Some(Told::Closed(id, reason)) if id == tunnel.id() => reason,
                other => panic!("expected a closed tunnel, got {other:?}"),
            }
        };
        let device = local_device(&handler, "a").await;
        let tunnel = ready(&handler, &device).await;
        tunnel.close_with(Status::permission_denied("revoked"));
        let EndReason::ClosedWith(status) = closed(&tunnel).await else {
            panic!("it was closed with a reason");
        };
        assert_eq!(status.message, "revoked");

        let device = local_device(&handler, "b").await;
        let tunnel = ready(&handler, &device).await;
        assert_eq!(tunnel.drain(NEVER).await, EndReason::Drained);
        assert_eq!(closed(&tunnel).await, EndReason::Drained);

        let device = local_device(&handler, "c").await;
        let tunnel = ready(&handler, &device).await;
        device.tunnel.drain(None);
        assert_eq!(closed(&tunnel).await, EndReason::PeerDrained);
        assert_eq!(tunnel.end_reason(), Some(EndReason::PeerDrained));
    })
    .await;
}

/// The close event of the last tunnel also comes before the drain returns.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_returns_after_the_last_close_event() {
    guarded(async {
        let (handler, mut callbacks) = telling();
        let mut events = handler.events();
        let mut devices = Vec::new();
        for name in ["a", "b", "c"] {
            devices.push(local_device(&handler, name).await);
        }
        handler.drain(NEVER).await;
        // Events of different tunnels come in any order.
        let mut all: Vec<_> = std::iter::from_fn(|| callbacks.try_recv().ok()).collect();
        assert_eq!(all.len(), 6, "all close events came before");
        for _ in 0..6 {
            let event = next(&mut events).await;
            let at = all.iter().position(|told| *told == event);
            all.remove(at.expect("each tunnel has a close event"));
        }
    })
    .await;
}

/// A tunnel without settings might never be able to carry a call.
#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_never_gets_ready_emits_no_event() {
    guarded(async {
        let (handler, mut callbacks) = telling();
        let mut events = handler.events();
        let dial = Dial::new(&Probe::default()).named("mute");
        let mute = dial.knock(handler.service()).await.expect("accepted");
        let [tunnel] = &handler.tunnels()[..] else {
            panic!("it is listed");
        };
        assert!(mute.is(tunnel) && !tunnel.is_ready());
        drop(mute);
        no_tunnels(&handler).await;
        // A tunnel that was drained or kicked before it was ready emits no event either.
        for drained in [true, false] {
            let dial = Dial::new(&Probe::default()).named("late");
            let late = dial.knock(handler.service()).await.expect("accepted");
            let tunnel = handler.tunnels().remove(0);
            let mut draining = Box::pin(tunnel.drain(NEVER));
            if drained {
                assert!(poll_immediate(draining.as_mut()).await.is_none());
            } else {
                tunnel.close_with(Status::aborted("kicked"));
            }
            late.serve().closed().await;
            no_tunnels(&handler).await;
        }
        let device = local_device(&handler, "device-7").await;
        let opened = Told::Opened(ready(&handler, &device).await.id());
        assert_eq!(next(&mut events).await, opened);
        assert_eq!(callbacks.recv().await, Some(opened));
    })
    .await;
}

/// Tunnels do not wait for a slow subscriber.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_subscriber_gets_the_number_of_missed_events_and_continues() {
    guarded(async {
        let handler = handler(|builder| builder);
        let (mut slow, mut quick) = (handler.events(), handler.events());
        let mut all = Vec::new();
        for _ in 0..600 {
            let forward = ForwardTunnel::new(handler.service()).open().await;
            forward.expect("accepted").close().await;
            for _ in 0..2 {
                all.push(next(&mut quick).await);
            }
        }
        assert_eq!(next(&mut slow).await, Told::Missed(1200 - 1024));
        for expected in &all[1200 - 1024..] {
            assert_eq!(next(&mut slow).await, *expected);
        }
        let device = local_device(&handler, "device-7").await;
        let opened = Told::Opened(ready(&handler, &device).await.id());
        assert_eq!(next(&mut slow).await, opened);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_that_panic_harm_no_tunnel_and_no_other_listener() {
    guarded(async {
        let gateway = Gateway::start_with(|builder| {
            builder
                .on_open(|_| panic!("as the test wants it"))
                .on_close(|_, _, _| panic!("as the test wants it"))
        })
        .await;
        let handler = &gateway.handler;
        let mut events = handler.events();
        let channel = gateway.connect().await;
        let dial = |name| {
            Dial::new(&Probe::default())
                .named(name)
                .dial(channel.clone())
        };
        let stays = dial("stays").await.expect("accepted");
        let id = ready(handler, &stays).await.id();
        assert_eq!(next(&mut events).await, Told::Opened(id));
        let goes = dial("goes").await.expect("accepted");
        let id = ready(handler, &goes).await.id();
        assert_eq!(next(&mut events).await, Told::Opened(id));
        assert_usable(&handler.key_as_channel("goes")).await;
        goes.hang_up();
        assert_eq!(
            next(&mut events).await,
            Told::Closed(id, EndReason::PeerClosed)
        );
        assert_usable(&handler.key_as_channel("stays")).await;
        assert_eq!(handler.tunnels().len(), 1);
        handler.drain(NEVER).await;
    })
    .await;
}

/// Callbacks run without any lock.
#[tokio::test(flavor = "multi_thread")]
async fn callbacks_may_use_the_handler_and_close_the_tunnel() {
    guarded(async {
        let own: Arc<Mutex<Option<TunnelServiceHandler>>> = Arc::default();
        let (tell, mut callbacks) = mpsc::unbounded_channel();
        let look = {
            let own = own.clone();
            move || {
                let handler = own.lock().expect("no panic").clone().expect("set");
                let channel = handler.key_as_channel("device-7");
                (
                    handler.tunnels().len(),
                    channel.tunnels().len(),
                    handler.kept_keys(),
                )
            }
        };
        let looks = look.clone();
        let opened = tell.clone();
        let handler = handler(|builder| {
            builder
                .on_open(move |tunnel| {
                    let _ = opened.send(looks());
                    tunnel.close_with(Status::aborted("not today"));
                })
                .on_close(move |_, _, _| {
                    let _ = tell.send(look());
                })
        });
        *own.lock().expect("no panic") = Some(handler.clone());
        let mut events = handler.events();
        for _ in 0..3 {
            let dial = Dial::new(&Probe::default()).named("device-7");
            let device = dial.dial(handler.service()).await.expect("accepted");
            device.closed().await;
            assert_eq!(callbacks.recv().await, Some((1, 1, 2)));
            assert_eq!(callbacks.recv().await, Some((0, 0, 1)));
            assert!(matches!(next(&mut events).await, Told::Opened(_)));
            assert!(matches!(next(&mut events).await, Told::Closed(..)));
        }
        own.lock().expect("no panic").take();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_end_when_the_handler_its_services_and_its_channels_are_dropped() {
    guarded(async {
        let handler = handler(|builder| builder);
        let mut events = handler.events();
        let device = local_device(&handler, "device-7").await;
        assert!(matches!(next(&mut events).await, Told::Opened(_)));
        let (service, channel) = (handler.service(), handler.as_channel());
        drop(handler);
        device.hang_up();
        assert!(matches!(next(&mut events).await, Told::Closed(..)));
        let forward = ForwardTunnel::new(service).open().await.expect("accepted");
        assert!(matches!(next(&mut events).await, Told::Opened(_)));
        forward.close().await;
        assert!(matches!(next(&mut events).await, Told::Closed(..)));
        assert!(poll_immediate(events.next()).await.is_none());
        drop(channel);
        assert!(events.next().await.is_none());
    })
    .await;
}

/// A builder may be cloned; its handlers share nothing.
#[tokio::test(flavor = "multi_thread")]
async fn each_handler_emits_events_of_its_own_tunnels() {
    guarded(async {
        let builder = TunnelServiceHandler::builder();
        let (one, other) = (builder.clone().build(), builder.build());
        let (mut ones, mut others) = (one.events(), other.events());
        let device = local_device(&one, "a").await;
        let id = ready(&one, &device).await.id();
        assert_eq!(next(&mut ones).await, Told::Opened(id));
        let device = local_device(&other, "b").await;
        let id = ready(&other, &device).await.id();
        assert_eq!(next(&mut others).await, Told::Opened(id));
    })
    .await;
}

/// Each tunnel that opened emits one open event and then one close event, whichever side ends it.
#[tokio::test(flavor = "multi_thread")]
async fn tunnels_that_open_and_close_quickly_emit_their_events_in_order() {
    guarded(async {
        let gateway = Gateway::start().await;
        let handler = &gateway.handler;
        let mut events = handler.events();
        let connections = join_all((0..4).map(|_| gateway.connect())).await;
        let rush = (0..300).map(|n: usize| {
            let channel = connections[n % 4].clone();
            let handler = handler.clone();
            tokio::spawn(async move {
                let name = format!("device-{}", n % 7);
                let dial = Dial::new(&Probe::default()).named(&name);
                let device = match dial.dial(channel).await {
                    Ok(device) => device,
                    // Its key was closed while it was opened.
                    Err(refused) => return assert_eq!(refused.code(), Code::Aborted),
                };
                match n % 5 {
                    0 => device.hang_up(),
                    1 => device.tunnel.drain(None),
                    2 => {
                        handler.close_key_with(name.as_str(), Status::aborted("kicked"));
                    }
                    3 => {
                        handler.drain_key(name.as_str(), NEVER).await;
                    }
                    _ => {
                        let find = || handler.tunnels().into_iter().find(|t| device.is(t.info()));
                        if let Some(tunnel) = find() {
                            tunnel.close_with(Status::aborted("kicked"));
                        }
                    }
                }
                device.hang_up();
                device.closed().await;
            })
        });
        for done in join_all(rush.collect::<Vec<_>>()).await {
            done.expect("no panic");
        }
        no_tunnels(handler).await;
        assert_eq!(handler.kept_keys(), 0);
        eventually(|| handler.as_channel().tunnels().is_empty()).await;
        // One more tunnel, to know when all events have come.
        let last = gateway.device("last").await;
        let last = ready(handler, &last).await.id();
        let mut open = HashMap::new();
        loop {
            match next(&mut events).await {
                Told::Opened(id) if id == last => break,
                Told::Opened(id) => assert_eq!(open.insert(id, true), None, "opened twice"),
                Told::Closed(id, _) => assert_eq!(open.insert(id, false), Some(true)),
                Told::NotOpened(id) => assert!(!open.contains_key(&id)),
                Told::Missed(count) => panic!("{count} were missed"),
            }
        }
        assert!(
            open.values().all(|open| !open),
            "all that opened have closed"
        );
    })
    .await;
}
