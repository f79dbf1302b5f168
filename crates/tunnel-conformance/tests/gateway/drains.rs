//! A gateway that drains its reverse tunnels.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::{FutureExt, join_all, poll_immediate};
use tokio::task::JoinHandle;
use tonic::Code;
use tunnel_conformance::client::run;
use tunnel_conformance::payload::assert_sent;
use tunnel_conformance::proto::Script;
use tunnel_conformance::{Kind, Outcome, Probe};
use tunnel_core::EndReason;
use tunnel_server::{ReverseChannel, TunnelServiceHandler};

use crate::support::by_hand;
use crate::support::by_hand::peer::Heard;
use crate::support::device::{Device, Dial};
use crate::support::{
    Gateway, NEVER, a_call, assert_no_tunnel, assert_usable, client, eventually, guarded, handler,
    local_device, no_tunnels, one_request, ready,
};

/// A call of each kind that waits at a device, and then answers.
pub(crate) async fn calls_in_flight(
    channel: &ReverseChannel,
    device: &Device,
) -> Vec<JoinHandle<Outcome>> {
    let calls = Kind::ALL.map(|kind| {
        let client = client(channel);
        tokio::spawn(async move {
            let script = Script::named("in flight").receive_all().wait("go on");
            let script = script.send(1, 100_000, 1);
            run(&client, kind, &script, one_request()).await
        })
    });
    let all = |record: &tunnel_conformance::probe::Record| record.received == 4;
    device.probe.until("in flight", all).await;
    calls.into()
}

pub(crate) async fn assert_all_finish(calls: Vec<JoinHandle<Outcome>>) {
    for outcome in join_all(calls).await {
        assert_sent(outcome.expect("no panic").expect_success(), 1, 100_000, 1);
    }
}

/// The ends of the tunnels at the devices after the gateway's drain.
pub(crate) fn in_order(reason: &EndReason) -> bool {
    matches!(reason, EndReason::PeerDrained | EndReason::PeerClosed)
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_in_flight_finish_and_new_ones_are_refused_while_the_gateway_drains() {
    guarded(async {
        let gateway = Gateway::start().await;
        let handler = gateway.handler.clone();
        let device = gateway.device("device-7").await;
        let idle = gateway.device("idle").await;
        let channel = handler.key_as_channel("device-7");
        let calls = calls_in_flight(&channel, &device).await;
        let drained = tokio::spawn({
            let handler = handler.clone();
            async move { handler.drain(NEVER).await }
        });
        // The devices get a notice while calls are in flight.
        device.tunnel.draining().await;
        assert!(in_order(&idle.closed().await));
        assert_eq!(device.tunnel.end_reason(), None);
        assert!(!channel.is_ready() && handler.all_reverse_tunnels().is_empty());
        for kind in Kind::ALL {
            for channel in [&channel, &handler.as_channel()] {
                let script = Script::named("too late");
                let outcome = run(&client(channel), kind, &script, one_request()).await;
                let message = outcome.expect_failure(Code::Unavailable).message();
                assert!(message.contains("draining"), "{message}");
            }
        }
        let late = Dial::new(&Probe::default())
            .dial(gateway.connect().await)
            .await;
        let late = late.err().expect("no new tunnels");
        assert_eq!(late.code(), Code::Unavailable);
        assert!(late.message().contains("draining"), "{late}");
        assert!(!drained.is_finished());
        device.probe.open("go on");
        assert_all_finish(calls).await;
        drained.await.expect("no panic");
        assert!(handler.tunnels().is_empty());
        assert!(in_order(&device.closed().await));
        assert_eq!(device.probe.record("too late").started, 0);
    })
    .await;
}

/// The outer call ends with OK, after the notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_drained_tunnel_ends_with_ok() {
    use tunnel_proto::grpctunnel::v1::client_to_server::Frame;
    guarded(async {
        let gateway = Gateway::start().await;
        let handler = &gateway.handler;
        let mut device = by_hand::device(gateway.connect().await, "device-7").await;
        let channel = handler.key_as_channel("device-7");
        channel.wait_for_ready(NEVER).await.expect("ready");
        let call = tokio::spawn({
            let channel = channel.clone();
            async move { a_call(&channel, "by hand").await }
        });
        let id = device.expect_call().await;
        device.expect_half_close(id).await;
        let tunnel = handler.tunnels().remove(0);
        let drained = tokio::spawn(async move { tunnel.drain(NEVER).await });
        let word = device.expect_frame().await;
        assert_eq!(
            (word.stream_id, word.frame),
            (-1, Some(Frame::HalfClose(())))
        );
        by_hand::answer(&device, id);
        call.await.expect("no panic").expect_success();
        let Heard::Status(status) = device.expect_end().await else {
            panic!("a status comes");
        };
        assert_eq!(status.code(), Code::Ok);
        assert_eq!(drained.await.expect("no panic"), EndReason::Drained);
        no_tunnels(handler).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_outlast_a_drain_are_cancelled_on_both_sides() {
    guarded(async {
        let gateway = Gateway::start().await;
        let handler = &gateway.handler;
        let device = gateway.device("device-7").await;
        let channel = handler.key_as_channel("device-7");
        let calls = calls_in_flight(&channel, &device).await;
        handler.drain(Duration::from_millis(10)).await;
        for outcome in join_all(calls).await {
            let outcome = outcome.expect("no panic");
            let message = outcome.expect_failure(Code::Unavailable).message();
            assert!(message.contains("deadline"), "{message}");
        }
        device.probe.until("in flight", |r| r.dropped == 4).await;
        assert!(in_order(&device.closed().await));
        assert!(handler.tunnels().is_empty());
    })
    .await;
}

/// The drain continues when its future is dropped.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_drain_brings_the_deadline_forward() {
    guarded(async {
        let handler = handler(|builder| builder);
        let device = local_device(&handler, "device-7").await;
        let channel = handler.key_as_channel("device-7");
        let calls = calls_in_flight(&channel, &device).await;
        let mut first = Box::pin(handler.drain(Duration::MAX));
        assert!(poll_immediate(first.as_mut()).await.is_none());
        drop(first);
        assert!(assert_no_tunnel(&channel).await.contains("draining"));
        let waiting = tokio::spawn({
            let handler = handler.clone();
            async move { handler.drain(NEVER).await }
        });
        handler.drain(Duration::ZERO).await;
        waiting.await.expect("no panic");
        for outcome in join_all(calls).await {
            outcome.expect("no panic").expect_failure(Code::Unavailable);
        }
        // A drain of a closed tunnel returns at once.
        handler.drain(Duration::MAX).await;
    })
    .await;
}

/// A deadline beyond the range of the clock counts as none.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_may_have_a_deadline_of_any_length() {
    guarded(async {
        for never in [Duration::MAX, Duration::from_secs(1 << 62)] {
            let handler = handler(|builder| builder);
            let device = local_device(&handler, "device-7").await;
            let channel = handler.key_as_channel("device-7");
            let calls = calls_in_flight(&channel, &device).await;
            channel.wait_for_ready(never).await.expect("ready");
            let mut drained = Box::pin(handler.drain(never));
            assert!(poll_immediate(drained.as_mut()).await.is_none());
            device.tunnel.draining().await;
            device.probe.open("go on");
            assert_all_finish(calls).await;
            drained.await;
        }
    })
    .await;
}

/// A drain that begins between the hook and the listing of the tunnel refuses the tunnel.
#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_is_admitted_as_the_drain_begins_is_refused() {
    guarded(async {
        let own: Arc<OnceLock<TunnelServiceHandler>> = Arc::default();
        let drains = own.clone();
        let handler = handler(|builder| {
            builder.admit(move |_| {
                let handler = drains.get().expect("set").clone();
                async move {
                    // The drain starts, and its future is dropped.
                    handler.drain(NEVER).now_or_never();
                    Ok(())
                }
            })
        });
        let _ = own.set(handler.clone());
        let dial = Dial::new(&Probe::default()).dial(handler.service()).await;
        let refused = dial.err().expect("no new tunnels");
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(handler.tunnels().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tunnel_or_those_of_a_key_are_drained_while_the_others_go_on() {
    guarded(async {
        let handler = handler(|builder| builder);
        let one = local_device(&handler, "blue").await;
        let two = local_device(&handler, "blue").await;
        let green = local_device(&handler, "green").await;
        let blue = handler.key_as_channel("blue");
        let first = ready(&handler, &one).await;
        assert_eq!(first.drain(NEVER).await, EndReason::Drained);
        assert!(in_order(&one.closed().await));
        assert!(two.is(blue.tunnels()[0].info()));
        let calls = calls_in_flight(&blue, &two).await;
        let drained = tokio::spawn({
            let handler = handler.clone();
            async move { handler.drain_key("blue", NEVER).await }
        });
        eventually(|| !blue.is_ready()).await;
        // New devices of the key are still accepted.
        let three = local_device(&handler, "blue").await;
        assert_usable(&blue).await;
        two.probe.open("go on");
        assert_all_finish(calls).await;
        assert_eq!(drained.await.expect("no panic"), 1);
        assert_eq!(handler.drain_key("nobody", NEVER).await, 0);
        assert!(green.tunnel.is_ready() && three.tunnel.is_ready());
        assert_eq!(handler.tunnels().len(), 2);
    })
    .await;
}

/// A device may drain too, and the gateway completes its last calls.
#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_its_device_drains_ends_with_its_last_call() {
    guarded(async {
        let handler = handler(|builder| builder);
        let device = local_device(&handler, "device-7").await;
        let channel = handler.key_as_channel("device-7");
        let calls = calls_in_flight(&channel, &device).await;
        let tunnel = ready(&handler, &device).await;
        device.tunnel.drain(None);
        eventually(|| !channel.is_ready()).await;
        assert_no_tunnel(&channel).await;
        device.probe.open("go on");
        assert_all_finish(calls).await;
        assert_eq!(device.closed().await, EndReason::Drained);
        assert!(in_order(&tunnel.closed().await));
        no_tunnels(&handler).await;
    })
    .await;
}
