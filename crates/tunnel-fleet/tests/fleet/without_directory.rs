//! While the directory does not answer.

use tonic::Code;
use tunnel_fleet::directory::MemoryDirectory;

use crate::support::{TestDevice, TestGateway, check, until};

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_and_new_devices_are_found_by_asking() {
    let directory = MemoryDirectory::new();
    let a = TestGateway::start("a", &directory).await;
    let b = TestGateway::start("b", &directory).await;
    let _known = TestDevice::connect("known", &[&b]).await;
    until("a knows the route", || a.channel("known").is_ready()).await;
    directory.set_reachable(false);
    until("a knows that it is cut off", || a.fleet.stats().stale).await;
    check(a.channel("known")).await.expect("by what is known");
    let _new = TestDevice::connect("new", &[&b]).await;
    check(b.channel("new")).await.expect("own tunnel");
    check(a.channel("new")).await.expect("by asking");
    let asked = a.fleet.stats().asked;
    check(a.channel("new")).await.expect("by what was answered");
    assert_eq!(a.fleet.stats().asked, asked);
    let status = check(a.channel("nowhere")).await.expect_err("not there");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status.message().contains("directory does not answer"),
        "{status}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lapsed_lease_loses_no_route_while_the_gateway_answers() {
    let directory = MemoryDirectory::new();
    let a = TestGateway::start("a", &directory).await;
    let b = TestGateway::start("b", &directory).await;
    let _device = TestDevice::connect("17", &[&b]).await;
    until("a knows the route", || a.channel("17").is_ready()).await;
    directory.set_reachable(false);
    // Longer than a lease.
    until("b is no member", || b.fleet.stats().stale).await;
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    check(a.channel("17")).await.expect("by what is known");
    directory.set_reachable(true);
    until("both are back", || {
        a.fleet.gateways().len() >= 2 && !a.fleet.stats().stale && b.fleet.stats().joined == 2
    })
    .await;
    check(a.channel("17")).await.expect("by hop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_came_meanwhile_is_published_afterwards() {
    let directory = MemoryDirectory::new();
    let a = TestGateway::start("a", &directory).await;
    let b = TestGateway::start("b", &directory).await;
    directory.set_reachable(false);
    let _device = TestDevice::connect("17", &[&b]).await;
    directory.set_reachable(true);
    until("a knows the route", || !a.fleet.routes("17").is_empty()).await;
    until("the hop is up", || a.channel("17").is_ready()).await;
    check(a.channel("17")).await.expect("by hop");
}
