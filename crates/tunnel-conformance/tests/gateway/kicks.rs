//! Tunnels that the gateway ends, and their handles.

use std::time::SystemTime;

use futures::future::join_all;
use tonic::{Code, Status};
use tunnel_client::{ForwardTunnel, TunnelError};
use tunnel_conformance::client::run;
use tunnel_conformance::metadata::every_byte;
use tunnel_conformance::proto::Script;
use tunnel_conformance::{Kind, Outcome, Probe};
use tunnel_core::{Code as WireCode, Config, ConnectionError, EndReason};
use tunnel_server::{AcceptedTunnel, Direction, Stats, TunnelServiceHandler};

use crate::support::by_hand;
use crate::support::by_hand::peer::Heard;
use crate::support::device::{Device, Dial};
use crate::support::{
    Gateway, assert_no_tunnel, assert_usable, client, eventually, guarded, handler, local_device,
    no_tunnels, one_request, ready,
};

/// A call of each kind that waits at a device.
async fn calls_in_flight(
    handler: &TunnelServiceHandler,
    name: &str,
    device: &Device,
) -> Vec<tokio::task::JoinHandle<Outcome>> {
    let calls = Kind::ALL.map(|kind| {
        let client = client(&handler.key_as_channel(name));
        tokio::spawn(async move {
            let script = Script::named("in flight").receive_all().pend();
            run(&client, kind, &script, one_request()).await
        })
    });
    let all = |record: &tunnel_conformance::probe::Record| record.received == 4;
    device.probe.until("in flight", all).await;
    calls.into()
}

/// The status by which the gateway ended a device's tunnel.
fn status_of(reason: EndReason) -> tunnel_core::Status {
    match reason {
        EndReason::Error(ConnectionError::EndedByPeer(status)) => status,
        other => panic!("expected the gateway to end the tunnel, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kicked_device_and_its_callers_see_the_reason() {
    guarded(async {
        let gateway = Gateway::start().await;
        let handler = &gateway.handler;
        let device = gateway.device("device-7").await;
        let other = gateway.device("other").await;
        let calls = calls_in_flight(handler, "device-7", &device).await;
        let tunnel = ready(handler, &device).await;
        tunnel.close_with(Status::permission_denied("the device was revoked"));
        assert!(!tunnel.is_ready());
        assert_no_tunnel(&handler.key_as_channel("device-7")).await;
        for outcome in join_all(calls).await {
            let outcome = outcome.expect("no panic");
            let message = outcome.expect_failure(Code::Unavailable).message();
            assert!(message.contains("the device was revoked"), "{message}");
            assert!(message.contains("may have been processed"), "{message}");
        }
        let status = status_of(device.closed().await);
        assert_eq!(status.code, WireCode::PermissionDenied);
        assert_eq!(status.message, "the device was revoked");
        device.probe.until("in flight", |r| r.dropped == 4).await;
        assert!(matches!(tunnel.closed().await, EndReason::ClosedWith(_)));
        eventually(|| handler.tunnels().len() == 1).await;
        assert!(handler.tunnel(tunnel.id()).is_none());
        assert!(other.is(handler.tunnels()[0].info()));
        assert_usable(&handler.key_as_channel("other")).await;
        // A second close has no effect.
        tunnel.close_with(Status::aborted("again"));
        assert_eq!(
            handler.close_key_with("device-7", Status::aborted("again")),
            0
        );
    })
    .await;
}

/// Frame by frame, on the wire.
#[tokio::test(flavor = "multi_thread")]
async fn the_reason_is_the_status_of_the_outer_call() {
    guarded(async {
        let gateway = Gateway::start().await;
        let handler = &gateway.handler;
        let reason = Status::with_details(
            Code::Unauthenticated,
            "gründlich\n100 %",
            every_byte().into(),
        );
        let mut device = by_hand::device(gateway.connect().await, "device-7").await;
        let channel = handler.key_as_channel("device-7");
        channel
            .wait_for_ready(crate::support::NEVER)
            .await
            .expect("ready");
        assert_eq!(handler.close_key_with("device-7", reason), 1);
        let Heard::Status(status) = device.expect_end().await else {
            panic!("a status comes");
        };
        assert_eq!(status.code(), Code::Unauthenticated);
        assert_eq!(status.message(), "gründlich\n100 %");
        assert_eq!(status.details(), every_byte());
        no_tunnels(handler).await;

        // OK is not accepted as a reason. A tunnel without settings can be kicked too.
        for ok in [true, false] {
            let mut device = by_hand::knock(gateway.connect().await, "device-7").await;
            let tunnel = handler.tunnels_of_key("device-7").remove(0);
            tunnel.close_with(if ok {
                Status::ok("")
            } else {
                Status::aborted("not yet")
            });
            let Heard::Status(status) = device.expect_end().await else {
                panic!("a status comes");
            };
            assert_eq!(status.code(), if ok { Code::Ok } else { Code::Aborted });
            no_tunnels(handler).await;
        }
    })
    .await;
}

/// The outer call's headers and its end arrive together, and the end has the reason.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_kicked_as_its_tunnel_opens_sees_the_reason() {
    guarded(async {
        let kick =
            |tunnel: &AcceptedTunnel| tunnel.close_with(Status::permission_denied("not you"));
        let gateway = Gateway::start_with(|builder| builder.on_open(kick)).await;
        for _ in 0..50 {
            let forward = ForwardTunnel::new(gateway.connect().await).open().await;
            let Err(TunnelError::Ended(reason)) = forward else {
                panic!("expected the tunnel to be kicked, got {forward:?}");
            };
            assert_eq!(status_of(reason).message, "not you");
            let dial = Dial::new(&Probe::default());
            let device = dial.dial(gateway.connect().await).await.expect("accepted");
            assert_eq!(status_of(device.closed().await).message, "not you");
        }
    })
    .await;
}

/// The code arrives even if the message does not fit.
#[tokio::test(flavor = "multi_thread")]
async fn a_reason_of_any_length_ends_the_tunnel() {
    guarded(async {
        let config = Config::builder().max_metadata_size(1000).build();
        let gateway = Gateway::start_with(|b| b.config(config.expect("valid"))).await;
        let device = gateway.device("device-7").await;
        let long = "ü".repeat(100_000);
        gateway
            .handler
            .close_key_with("device-7", Status::resource_exhausted(long));
        let status = status_of(device.closed().await);
        assert_eq!(status.code, WireCode::ResourceExhausted);
        assert!(!status.message.is_empty() && status.message.len() <= 1000);
        no_tunnels(&gateway.handler).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tunnels_of_a_key_are_kicked_by_one_call_and_no_others() {
    guarded(async {
        let handler = handler(|builder| builder);
        let mut blue = Vec::new();
        for _ in 0..5 {
            blue.push(local_device(&handler, "blue").await);
        }
        let mute = Dial::new(&Probe::default()).named("blue");
        let mute = mute.knock(handler.service()).await.expect("accepted");
        let green = local_device(&handler, "green").await;
        let kicked = handler.close_key_with("blue", Status::unauthenticated("renew"));
        assert_eq!(kicked, 6, "including the tunnel that is being opened");
        assert!(!handler.key_as_channel("blue").is_ready());
        blue.push(mute.serve());
        for device in blue {
            let status = status_of(device.closed().await);
            assert_eq!(status.code, WireCode::Unauthenticated);
        }
        eventually(|| handler.tunnels().len() == 1).await;
        assert!(green.is(handler.tunnels()[0].info()));
        assert_usable(&handler.as_channel()).await;
        // The devices may open new tunnels.
        local_device(&handler, "blue").await;
        assert_usable(&handler.key_as_channel("blue")).await;
    })
    .await;
}

/// Tunnels that are kicked while they open.
#[tokio::test(flavor = "multi_thread")]
async fn kicks_of_opening_tunnels_leave_nothing_behind() {
    guarded(async {
        let handler = handler(|builder| builder);
        let devices = (0..4).map(|_| {
            let handler = handler.clone();
            tokio::spawn(async move {
                for _ in 0..50 {
                    let dial = Dial::new(&Probe::default()).named("device-7");
                    // Kicked before it was accepted, or after.
                    match dial.dial(handler.service()).await {
                        Ok(device) => _ = status_of(device.closed().await),
                        Err(refused) => assert_eq!(refused.message(), "not today"),
                    }
                }
            })
        });
        let devices = devices.collect::<Vec<_>>();
        while !devices.iter().all(|device| device.is_finished()) {
            handler.close_key_with("device-7", Status::aborted("not today"));
            tokio::task::yield_now().await;
        }
        for device in devices {
            device.await.expect("no panic");
        }
        no_tunnels(&handler).await;
        assert_eq!(handler.kept_keys(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_knows_its_tunnels_and_counts_what_goes_through_them() {
    guarded(async {
        let before = SystemTime::now();
        let gateway = Gateway::start().await;
        let handler = &gateway.handler;
        let dial = Dial::new(&Probe::default()).named("device-7");
        let dial = dial.with("firmware", "1.2.3");
        let device = dial.dial(gateway.connect().await).await.expect("accepted");
        let tunnel = ready(handler, &device).await;
        assert_eq!(tunnel.direction(), Direction::Reverse);
        assert_eq!(tunnel.key().map(|key| key.as_str()), Some("device-7"));
        assert_eq!(tunnel.metadata().get("firmware").expect("sent"), "1.2.3");
        assert!(
            tunnel
                .peer_addr()
                .is_some_and(|peer| peer.ip().is_loopback())
        );
        assert!((before..=SystemTime::now()).contains(&tunnel.opened_at()));
        assert_eq!(
            handler.tunnel(tunnel.id()).expect("listed").id(),
            tunnel.id()
        );
        assert_eq!(tunnel.stats(), Stats::default());
        assert_eq!(tunnel.end_reason(), None);

        let script = Script::named("counted").receive_all().wait("go on");
        let script = script.send(1, 5_000, 1);
        let channel = handler.key_as_channel("device-7");
        let calls = (0..3).map(|_| {
            let (client, script) = (client(&channel), script.clone());
            let sent = vec![tunnel_conformance::payload::request(1, 70_000)];
            tokio::spawn(async move { run(&client, Kind::Unary, &script, sent).await })
        });
        let calls: Vec<_> = calls.collect();
        device.probe.until("counted", |r| r.received == 3).await;
        let stats = tunnel.stats();
        assert_eq!((stats.streams, stats.streams_total), (3, 3));
        assert!((210_000..211_000).contains(&stats.bytes_sent), "{stats:?}");
        assert_eq!(stats.bytes_received, 0);
        device.probe.open("go on");
        for outcome in join_all(calls).await {
            outcome.expect("no panic").expect_success();
        }
        eventually(|| tunnel.stats().streams == 0).await;
        let stats = tunnel.stats();
        assert!(
            (15_000..16_000).contains(&stats.bytes_received),
            "{stats:?}"
        );
        assert_eq!(handler.stats(), [(tunnel.id(), stats)]);
        // The handle does not keep the tunnel open, and works after the tunnel's end.
        device.hang_up();
        no_tunnels(handler).await;
        assert_eq!(tunnel.end_reason(), Some(EndReason::PeerClosed));
        assert_eq!(tunnel.stats().streams_total, 3);
        let text = format!("{tunnel:?}");
        assert!(
            text.contains("device-7") && !text.contains("1.2.3"),
            "{text}"
        );
    })
    .await;
}
