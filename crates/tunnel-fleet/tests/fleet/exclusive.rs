//! Keys that belong to one device at a time.

use tunnel_client::DownReason;
use tunnel_fleet::directory::MemoryDirectory;
use tunnel_fleet::{Exclusive, FleetBuilder};

use crate::support::{TestDevice, TestGateway, check, until};

fn exclusive(builder: FleetBuilder) -> FleetBuilder {
    builder.exclusive(Exclusive::Yes)
}

fn down_with(device: &TestDevice, what: &str) -> bool {
    let links = device.handle.links();
    let reason = links
        .first()
        .and_then(|link| link.last_down_reason().cloned());
    reason.is_some_and(|reason: DownReason| reason.to_string().contains(what))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_device_has_the_key_and_two_that_fight_for_it_are_found_out() {
    let directory = MemoryDirectory::new();
    let a = TestGateway::start_with("a", &directory, exclusive).await;
    let b = TestGateway::start_with("b", &directory, exclusive).await;
    let old = TestDevice::start("17", &[&a], "old");
    old.handle.connected().await.expect("connects");
    let new = TestDevice::start("17", &[&b], "new");
    new.handle.connected().await.expect("connects");
    until("the old one is cut", || down_with(&old, "another device")).await;
    // The old device comes back by itself, and is refused.
    until("the old one is refused", || {
        down_with(&old, "took it less than a minute ago")
    })
    .await;
    until("a knows the route", || a.channel("17").is_ready()).await;
    check(a.channel("17")).await.expect("by the new one");
    assert_eq!((old.calls.count(), new.calls.count()), (0, 1));
    assert!(a.fleet.stats().flaps > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_moves_takes_its_key_along_and_its_old_tunnel_is_drained() {
    let directory = MemoryDirectory::new();
    let a = TestGateway::start_with("a", &directory, exclusive).await;
    let b = TestGateway::start_with("b", &directory, exclusive).await;
    let before = TestDevice::once("17", &a, "one");
    before.handle.connected().await.expect("connects");
    let after = TestDevice::once("17", &b, "one");
    after.handle.connected().await.expect("connects");
    until("the old tunnel is drained", || {
        !a.handler.key_as_channel("17").is_ready()
    })
    .await;
    until("a knows the route", || a.channel("17").is_ready()).await;
    check(a.channel("17")).await.expect("at the new place");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_directory_the_strict_ones_accept_nobody() {
    let directory = MemoryDirectory::new();
    let strict = |builder: FleetBuilder| builder.exclusive(Exclusive::Strict);
    let a = TestGateway::start_with("a", &directory, strict).await;
    let b = TestGateway::start_with("b", &directory, exclusive).await;
    directory.set_reachable(false);
    let refused = TestDevice::start("17", &[&a], "one");
    until("it is refused", || {
        down_with(&refused, "directory does not answer")
    })
    .await;
    let accepted = TestDevice::start("18", &[&b], "one");
    accepted.handle.connected().await.expect("connects");
    check(b.channel("18")).await.expect("own tunnel");
}
