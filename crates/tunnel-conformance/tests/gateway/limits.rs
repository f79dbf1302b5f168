//! The limits on tunnels, in total and for each key.

use futures::future::join_all;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tunnel_client::{ForwardTunnel, TunnelChannel, TunnelError};
use tunnel_conformance::Probe;
use tunnel_core::{Code as WireCode, ConnectionError, EndReason};
use tunnel_server::{TunnelServiceHandler, WhenKeyIsFull};

use crate::support::device::{Device, Dial};
use crate::support::{
    Gateway, assert_usable, callable, eventually, guarded, handler, local_device, no_tunnels,
    ready, served,
};

async fn dial(handler: &TunnelServiceHandler, name: &str) -> Result<Device, Status> {
    let dial = Dial::new(&Probe::default()).named(name);
    dial.dial(handler.service()).await
}

/// The status of a device that is refused for a limit.
async fn refused(handler: &TunnelServiceHandler, name: &str) -> Status {
    let status = dial(handler, name).await.err().expect("one too many");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_of_both_directions_open_up_to_the_limit() {
    guarded(async {
        let handler = handler(|builder| builder.max_tunnels(3));
        let mut devices = Vec::new();
        for name in ["a", "b"] {
            devices.push(local_device(&handler, name).await);
        }
        // Both directions count.
        let forward = ForwardTunnel::new(handler.service()).open().await;
        let forward = forward.expect("the third");
        for _ in 0..3 {
            let status = refused(&handler, "c").await;
            assert!(status.message().contains("3 tunnels"), "{status}");
            assert_eq!(handler.tunnels().len(), 3);
        }
        let many = ForwardTunnel::new(handler.service()).open().await;
        assert_eq!(
            Status::from(many.expect_err("the fourth")).code(),
            Code::ResourceExhausted
        );
        // A tunnel that ends makes room for another.
        for round in 0..3 {
            devices.remove(0).hang_up();
            eventually(|| handler.tunnels().len() == 2).await;
            devices.push(local_device(&handler, &format!("next {round}")).await);
            refused(&handler, "d").await;
        }
        forward.close().await;
        eventually(|| handler.tunnels().len() == 2).await;
        local_device(&handler, "e").await;
        refused(&handler, "f").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_of_each_key_open_up_to_its_limit() {
    guarded(async {
        let handler = handler(|builder| builder.max_tunnels_per_key(2));
        let mut devices = Vec::new();
        for name in ["blue", "green", "blue", "green"] {
            devices.push(local_device(&handler, name).await);
        }
        for name in ["blue", "green"] {
            let status = refused(&handler, name).await;
            assert!(
                status.message().contains(&format!("key {name:?} has 2")),
                "{status}"
            );
        }
        // Tunnels without a key have no such limit.
        for _ in 0..5 {
            let device = Dial::new(&Probe::default()).dial(handler.service()).await;
            ready(&handler, &device.expect("no key")).await;
        }
        devices[2].hang_up();
        eventually(|| handler.tunnels_of_key("blue").len() == 1).await;
        local_device(&handler, "blue").await;
        refused(&handler, "blue").await;
        refused(&handler, "green").await;
        assert_eq!(handler.tunnels_of_key("blue").len(), 2);
    })
    .await;
}

/// The order of the openings does not matter.
#[tokio::test(flavor = "multi_thread")]
async fn devices_that_dial_at_once_are_accepted_up_to_the_limit() {
    guarded(async {
        let gateway = Gateway::start_with(|b| b.max_tunnels(20).max_tunnels_per_key(4)).await;
        let handler = &gateway.handler;
        let connections = join_all((0..4).map(|_| gateway.connect())).await;
        let dials = (0..200).map(|n| {
            let dial = Dial::new(&Probe::default()).named(&format!("device-{}", n % 10));
            tokio::spawn(dial.dial(connections[n % 4].clone()))
        });
        let dialled = join_all(dials.collect::<Vec<_>>()).await;
        let mut devices = Vec::new();
        for dialled in dialled {
            match dialled.expect("no panic") {
                Ok(device) => devices.push(device),
                Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
            }
        }
        assert_eq!(devices.len(), 20);
        callable(handler, 20).await;
        for n in 0..10 {
            assert!(handler.tunnels_of_key(format!("device-{n}")).len() <= 4);
        }
        devices.iter().for_each(Device::hang_up);
        no_tunnels(handler).await;
        assert_eq!(handler.kept_keys(), 0);
    })
    .await;
}

/// Whether a tunnel ended because a newer one replaced it.
fn replaced(reason: &EndReason) -> bool {
    matches!(
        reason,
        EndReason::Error(ConnectionError::EndedByPeer(status))
            if status.code == WireCode::Aborted && status.message.contains("newer tunnel")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_tunnel_of_a_full_key_is_closed_if_so_configured() {
    guarded(async {
        let handler = handler(|builder| {
            builder
                .max_tunnels_per_key(2)
                .when_key_is_full(WhenKeyIsFull::CloseOldest)
        });
        let other = local_device(&handler, "other").await;
        let mut devices = Vec::new();
        for round in 0..6 {
            devices.push(local_device(&handler, "device-7").await);
            let (gone, open) = devices.split_at(devices.len().saturating_sub(2));
            if let Some(oldest) = gone.last() {
                let reason = oldest.closed().await;
                assert!(replaced(&reason), "round {round}: {reason:?}");
            }
            let tunnels = handler.tunnels_of_key("device-7");
            assert_eq!(tunnels.len(), open.len());
            for (device, tunnel) in open.iter().zip(&tunnels) {
                assert!(device.is(tunnel.info()), "oldest first");
            }
            assert_usable(&handler.key_as_channel("device-7")).await;
        }
        eventually(|| handler.tunnels().len() == 3).await;
        assert!(other.tunnel.is_ready());
    })
    .await;
}

/// A device can come back while its last tunnel still counts towards the limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_replaces_another_opens_although_the_gateway_is_full() {
    guarded(async {
        let handler = handler(|builder| {
            builder
                .max_tunnels(2)
                .max_tunnels_per_key(1)
                .when_key_is_full(WhenKeyIsFull::CloseOldest)
        });
        let other = local_device(&handler, "other").await;
        let mut device = local_device(&handler, "device-7").await;
        for _ in 0..20 {
            // The total limit still applies to another device.
            refused(&handler, "new").await;
            let next = dial(&handler, "device-7")
                .await
                .expect("it takes its own place");
            assert!(replaced(&device.closed().await));
            device = next;
            let channel = handler.key_as_channel("device-7");
            ready(&handler, &device).await;
            assert!(device.is(served(&channel, "after").await.tunnel()));
        }
        eventually(|| handler.tunnels().len() == 2).await;
        other.hang_up();
        eventually(|| handler.tunnels().len() == 1).await;
        local_device(&handler, "new").await;
        refused(&handler, "newer").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_may_have_no_tunnel_has_none_to_replace() {
    guarded(async {
        for then in [WhenKeyIsFull::Refuse, WhenKeyIsFull::CloseOldest] {
            let handler = handler(|b| b.max_tunnels_per_key(0).when_key_is_full(then));
            let status = refused(&handler, "device-7").await;
            assert!(status.message().contains("\"device-7\" has 0"), "{status}");
            assert_eq!(handler.kept_keys(), 0);
            let device = Dial::new(&Probe::default()).dial(handler.service()).await;
            ready(&handler, &device.expect("no key")).await;
        }
    })
    .await;
}

/// The limit for an address applies to tunnels without a key.
#[tokio::test(flavor = "multi_thread")]
async fn tunnels_of_a_connection_and_of_an_address_open_up_to_their_limits() {
    guarded(async {
        let gateway = Gateway::start_with(|builder| {
            let builder = builder.max_tunnels_per_connection(3);
            builder.max_tunnels_per_address(5)
        });
        let gateway = gateway.await;
        let refused = |limit: &'static str, opened: Result<TunnelChannel, TunnelError>| {
            let status = Status::from(opened.expect_err("one too many"));
            assert_eq!(status.code(), Code::ResourceExhausted);
            assert!(status.message().contains(limit), "{status}");
        };
        let open = async |channel: &Channel| ForwardTunnel::new(channel.clone()).open().await;
        let (one, other) = (gateway.connect().await, gateway.connect().await);
        let mut tunnels = Vec::new();
        for channel in [&one, &one, &one, &other, &other] {
            tunnels.push(open(channel).await.expect("there is room"));
        }
        refused("max_tunnels_per_connection allows", open(&one).await);
        refused("max_tunnels_per_address allows", open(&other).await);
        // Keys have a limit of their own.
        let _device = gateway.device("device-7").await;
        tunnels.remove(0).close().await;
        eventually(|| gateway.handler.tunnels().len() == 5).await;
        tunnels.push(open(&one).await.expect("there is room again"));

        drop((tunnels, one, other));
        gateway.server.kill();
        eventually(|| gateway.handler.kept_keys() == 0).await;
    })
    .await;
}
