//! The tunnels that calls may use, and how long the state of a key is kept.

use futures::future::{FutureExt, poll_immediate};
use tokio::runtime::Handle;
use tonic::Status;
use tunnel_conformance::Probe;
use tunnel_conformance::client::run;
use tunnel_conformance::proto::Script;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::{Kind, TestChannel};
use tunnel_core::{Config, Revisions};
use tunnel_server::Direction;

use crate::support::by_hand;
use crate::support::device::Dial;
use crate::support::{
    Gateway, NEVER, assert_no_tunnel, assert_usable, callable, eventually, guarded, handler,
    local_device, no_tunnels, one_request, ready,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_without_settings_is_listed_and_takes_no_calls() {
    guarded(async {
        let handler = handler(|builder| builder);
        let (all, own) = (handler.as_channel(), handler.key_as_channel("device-7"));
        let dial = Dial::new(&Probe::default()).named("device-7");
        let accepted = dial.knock(handler.service()).await.expect("accepted");
        assert_eq!(handler.tunnels().len(), 1);
        assert_eq!(handler.tunnels_of_key("device-7").len(), 1);
        for channel in [&all, &own] {
            assert!(!channel.is_ready() && channel.tunnels().is_empty());
            assert_no_tunnel(channel).await;
        }
        assert!(handler.all_reverse_tunnels().is_empty());
        let device = accepted.serve();
        for channel in [&all, &own] {
            channel
                .wait_for_ready(NEVER)
                .await
                .expect("it is ready now");
            assert_usable(channel).await;
            assert!(device.is(channel.tunnels()[0].info()));
        }
    })
    .await;
}

/// A device of revision zero sends no settings to wait for.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_the_first_revision_can_be_called_at_once() {
    guarded(async {
        let handler = handler(|builder| builder);
        let config = Config::builder().revisions(Revisions::OnlyZero).build();
        let dial = Dial::new(&Probe::default()).named("old");
        let dial = dial.config(config.expect("valid"));
        let device = dial.dial(handler.service()).await.expect("accepted");
        assert!(handler.key_as_channel("old").is_ready());
        assert_usable(&handler.key_as_channel("old")).await;
        device.hang_up();
        no_tunnels(&handler).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_leaves_its_pools_as_soon_as_either_end_drains_it() {
    guarded(async {
        let handler = handler(|builder| builder);
        let channel = handler.key_as_channel("device-7");
        for here in [true, false] {
            let device = local_device(&handler, "device-7").await;
            let tunnel = ready(&handler, &device).await;
            let script = Script::named("in flight").receive_all().wait("go on");
            let script = script.send(1, 10, 1);
            let client = crate::support::client(&channel);
            let call =
                tokio::spawn(
                    async move { run(&client, Kind::Unary, &script, one_request()).await },
                );
            device.probe.started("in flight").await;
            let mut ended = if here {
                let tunnel = tunnel.clone();
                async move { tunnel.drain(NEVER).await }.boxed()
            } else {
                device.tunnel.drain(None);
                eventually(|| !channel.is_ready()).await;
                let tunnel = tunnel.clone();
                async move { tunnel.closed().await }.boxed()
            };
            assert!(poll_immediate(ended.as_mut()).await.is_none());
            assert!(!channel.is_ready() && !handler.as_channel().is_ready());
            assert!(!tunnel.is_ready());
            assert!(handler.all_reverse_tunnels().is_empty());
            assert_eq!(
                handler.tunnels_of_key("device-7").len(),
                1,
                "it is still open"
            );
            assert_no_tunnel(&channel).await;
            device.probe.open("go on");
            call.await.expect("no panic").expect_success();
            ended.await;
            no_tunnels(&handler).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_was_lost_leaves_its_pools() {
    guarded(async {
        let gateway = Gateway::start().await;
        let handler = &gateway.handler;
        let proxy = tunnel_conformance::FaultProxy::to(gateway.server.address()).await;
        let channel = proxy.endpoint().connect().await.expect("a connection");
        let dial = Dial::new(&Probe::default()).named("device-7");
        let device = dial.dial(channel).await.expect("accepted");
        let other = gateway.device("other").await;
        callable(handler, 2).await;
        proxy.cut();
        callable(handler, 1).await;
        assert!(other.is(handler.as_channel().tunnels()[0].info()));
        assert_no_tunnel(&handler.key_as_channel("device-7")).await;
        device.closed().await;
        eventually(|| handler.tunnels().len() == 1).await;
    })
    .await;
}

/// These channels allow a call to every tunnel.
#[tokio::test(flavor = "multi_thread")]
async fn each_reverse_tunnel_is_a_channel_of_its_own() {
    guarded(async {
        let handler = handler(|builder| builder);
        let mut devices = Vec::new();
        for name in ["a", "a", "b"] {
            devices.push(local_device(&handler, name).await);
        }
        for tunnel in handler.all_reverse_tunnels() {
            assert_eq!(tunnel.info().direction(), Direction::Reverse);
            let client = TestServiceClient::new(TestChannel::new(tunnel.clone()));
            let script = Script::named("to every one").receive_all().send(1, 1, 1);
            let outcome = run(&client, Kind::Unary, &script, one_request()).await;
            outcome.expect_success();
            // Dropping the last of these channels does not close the tunnel.
            drop((client, tunnel));
        }
        for device in &devices {
            assert_eq!(device.probe.record("to every one").started, 1);
        }
        callable(&handler, 3).await;
    })
    .await;
}

/// A channel works before its first device, between devices, and after the last.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_outlives_its_devices() {
    guarded(async {
        let handler = handler(|builder| builder);
        let channel = handler.key_as_channel("device-7");
        for _ in 0..3 {
            assert!(assert_no_tunnel(&channel).await.contains("\"device-7\""));
            let device = local_device(&handler, "device-7").await;
            assert_usable(&channel).await;
            device.hang_up();
            no_tunnels(&handler).await;
        }
        assert_no_tunnel(&channel).await;
    })
    .await;
}

/// State for old keys would be a memory leak.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_for_a_key_without_tunnels_and_channels() {
    guarded(async {
        let handler = handler(|builder| builder);
        assert_eq!(handler.kept_keys(), 0);
        for n in 0..50 {
            drop(handler.key_as_channel(format!("asked for {n}")));
            assert!(handler.tunnels_of_key(format!("looked for {n}")).is_empty());
            assert_eq!(
                handler.close_key_with(format!("kicked {n}"), Status::aborted("")),
                0
            );
        }
        assert_eq!(handler.kept_keys(), 0);
        // The channel is dropped first, then the tunnel; then the opposite order.
        for channel_first in [true, false] {
            let channel = handler.key_as_channel("device-7");
            assert_eq!(handler.kept_keys(), 1);
            let device = local_device(&handler, "device-7").await;
            let clone = channel.clone();
            assert_eq!(handler.kept_keys(), 2);
            if channel_first {
                drop((channel, clone));
                assert_eq!(handler.kept_keys(), 2);
                device.hang_up();
                no_tunnels(&handler).await;
            } else {
                device.hang_up();
                no_tunnels(&handler).await;
                assert_eq!(handler.kept_keys(), 1);
                drop((channel, clone));
            }
            assert_eq!(handler.kept_keys(), 0);
        }
        // A tunnel that was never ready and a draining tunnel without calls keep nothing either.
        let dial = Dial::new(&Probe::default()).named("mute");
        drop(dial.knock(handler.service()).await.expect("accepted"));
        no_tunnels(&handler).await;
        assert_eq!(handler.kept_keys(), 0);
    })
    .await;
}

/// Channels of one key that come and go, while its tunnels do, all lead to the same tunnels.
#[tokio::test(flavor = "multi_thread")]
async fn channels_of_a_key_are_made_and_dropped_while_its_tunnels_come_and_go() {
    guarded(async {
        let handler = handler(|builder| builder);
        let channels = {
            let handler = handler.clone();
            tokio::task::spawn_blocking(move || {
                for n in 0..20_000_u32 {
                    let channel = handler.key_as_channel("device-7");
                    let clone = (n % 3 == 0).then(|| channel.clone());
                    drop(channel);
                    drop(clone);
                }
            })
        };
        let mut rounds = 0;
        while !channels.is_finished() || rounds < 20 {
            let device = local_device(&handler, "device-7").await;
            let channel = handler.key_as_channel("device-7");
            assert!(
                channel.is_ready(),
                "the tunnel is in the pool that channels get"
            );
            assert_usable(&channel).await;
            device.hang_up();
            no_tunnels(&handler).await;
            assert!(!channel.is_ready());
            rounds += 1;
        }
        channels.await.expect("no panic");
        assert_eq!(handler.kept_keys(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_works_after_its_handler_was_dropped() {
    guarded(async {
        let handler = handler(|builder| builder);
        let channel = handler.key_as_channel("device-7");
        let device = local_device(&handler, "device-7").await;
        drop(handler);
        assert_usable(&channel).await;
        device.hang_up();
        eventually(|| !channel.is_ready()).await;
        assert_no_tunnel(&channel).await;
        drop(channel);
        eventually(|| Handle::current().metrics().num_alive_tasks() == 0).await;
    })
    .await;
}

/// A frame for an unknown call or an unreadable frame ends only the tunnel that carried it.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_breaks_the_protocol_is_out_of_the_pools() {
    guarded(async {
        let handler = handler(|builder| builder);
        let good = local_device(&handler, "good").await;
        let channel = handler.key_as_channel("bad");
        for call in [true, false] {
            let mut bad = by_hand::device(handler.service(), "bad").await;
            channel.wait_for_ready(NEVER).await.expect("it is ready");
            if call {
                by_hand::answer(&bad, 7);
            } else {
                bad.say_bytes(vec![0, 0, 0, 0, 1, 0xff]);
            }
            bad.expect_end().await;
            eventually(|| !channel.is_ready()).await;
            eventually(|| handler.tunnels().len() == 1).await;
        }
        assert!(good.is(handler.tunnels()[0].info()));
        assert_usable(&handler.as_channel()).await;
    })
    .await;
}
