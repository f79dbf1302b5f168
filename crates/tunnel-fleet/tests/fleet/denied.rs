//! Keys that may not connect.

use tunnel_fleet::directory::MemoryDirectory;
use tunnel_fleet::record::Denial;

use crate::support::{TestDevice, TestGateway, check, until};

fn denial() -> Denial {
    Denial {
        reason: "stolen".into(),
        by: "operator".into(),
        ..Denial::default()
    }
}

async fn is_refused(device: &TestDevice) {
    until("the device is refused", || {
        let links = device.handle.links();
        links.iter().any(|link| {
            let reason = link.last_down_reason();
            reason
                .is_some_and(|reason| reason.is_refusal() && reason.to_string().contains("stolen"))
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_key_is_cut_and_refused_everywhere() {
    let directory = MemoryDirectory::new();
    let a = TestGateway::start("a", &directory).await;
    let b = TestGateway::start("b", &directory).await;
    let device = TestDevice::connect("17", &[&b]).await;
    until("a knows the route", || a.channel("17").is_ready()).await;
    let report = a.fleet.deny("17", denial()).await;
    assert_eq!((report.written, report.unconfirmed), (Ok(()), vec![]));
    is_refused(&device).await;
    assert!(b.handler.tunnels_of_key("17").is_empty());
    assert_eq!(b.fleet.denials().len(), 1);
    // Also a gateway that comes later.
    let c = TestGateway::start("c", &directory).await;
    until("c knows the denial", || !c.fleet.denials().is_empty()).await;
    is_refused(&TestDevice::start("17", &[&c], "")).await;
    a.fleet.allow("17").await;
    until("c knows that it is over", || c.fleet.denials().is_empty()).await;
    let _again = TestDevice::connect("17", &[&c]).await;
    until("a knows that it is at c", || {
        let routes = a.fleet.routes("17");
        routes.iter().all(|route| &*route.gateway == "c") && a.channel("17").is_ready()
    })
    .await;
    check(a.channel("17")).await.expect("by c");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_reaches_the_gateways_without_the_directory_and_says_whom_it_did_not_reach() {
    let directory = MemoryDirectory::new();
    let a = TestGateway::start("a", &directory).await;
    let b = TestGateway::start("b", &directory).await;
    let unreachable = |builder: tunnel_fleet::FleetBuilder| builder.advertise("http://127.0.0.1:1");
    let c = TestGateway::start_with("c", &directory, unreachable).await;
    let device = TestDevice::connect("17", &[&b]).await;
    until("a knows the route", || {
        a.channel("17").is_ready() && a.fleet.gateways().len() == 3
    })
    .await;
    directory.set_reachable(false);
    let report = a.fleet.deny("17", denial()).await;
    assert!(report.written.is_err());
    assert_eq!(report.unconfirmed, ["c"]);
    is_refused(&device).await;
    // It is written when the directory answers, and the third gateway hears of it.
    assert!(c.fleet.denials().is_empty());
    directory.set_reachable(true);
    until("c knows the denial", || !c.fleet.denials().is_empty()).await;
}
