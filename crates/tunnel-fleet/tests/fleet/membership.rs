//! Gateways that come, go, and come back.

use std::time::Duration;

use futures::StreamExt;
use tunnel_fleet::directory::{Change, Directory, LeaseId, MemoryDirectory, Update};
use tunnel_fleet::{Fleet, JoinError};
use tunnel_server::TunnelServiceHandler;

use crate::support::{TestDevice, TestGateway, check, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_name_whose_gateway_lives_is_refused_and_a_killed_one_gets_it_back() {
    let directory = MemoryDirectory::new();
    let mut first = TestGateway::start("a", &directory).await;
    let join = || async {
        let fleet = Fleet::builder("a")
            .directory(directory.clone())
            .lease_ttl(Duration::from_secs(1))
            .build();
        let handler = fleet.watch_tunnels(TunnelServiceHandler::builder()).build();
        (fleet.join(&handler).await, fleet)
    };
    let (joined, _) = join().await;
    assert_eq!(joined, Err(JoinError::NameTaken("a".into())));
    first.kill();
    let (joined, fleet) = join().await;
    assert_eq!(joined, Ok(()));
    fleet.leave().await;
    // Who has left frees the name at once.
    let (joined, _fleet) = join().await;
    assert_eq!(joined, Ok(()));
}

#[tokio::test]
async fn a_name_that_is_no_label_is_refused() {
    for name in ["", "a b", "a/b", &"x".repeat(64)] {
        let fleet = Fleet::builder(name).build();
        let handler = TunnelServiceHandler::builder().build();
        let joined = fleet.join(&handler).await;
        assert_eq!(joined, Err(JoinError::IllegalName(name.into())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_lost_its_lease_joins_again_and_its_devices_with_it() {
    let directory = MemoryDirectory::new();
    let soon = Duration::from_millis(50);
    let a = TestGateway::start_with("a", &directory, |b| b.sweep_after(soon, soon * 2)).await;
    let b = TestGateway::start("b", &directory).await;
    let device = TestDevice::connect("17", &[&b]).await;
    until("a knows the route", || a.channel("17").is_ready()).await;
    let before = a.fleet.routes("17")[0].incarnation.clone();
    // As if b had been suspended for longer than its lease.
    for lease in 1..=2 {
        directory.revoke(LeaseId(lease)).await.expect("reachable");
    }
    until("b is back under another name", || {
        let routes = a.fleet.routes("17");
        routes.iter().any(|route| route.incarnation != before) && a.channel("17").is_ready()
    })
    .await;
    check(a.channel("17")).await.expect("by hop");
    assert_eq!(device.calls.count(), 1);
    assert_eq!(b.fleet.stats().joined, 2);
    until("nothing is left of the names before", || {
        (a.fleet.gateways().len(), a.fleet.peers().len()) == (2, 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_gateway_left_behind_is_swept() {
    let directory = MemoryDirectory::new();
    let soon = Duration::from_millis(50);
    let _a = TestGateway::start_with("a", &directory, |b| b.sweep_after(soon, soon * 2)).await;
    let mut b = TestGateway::start("b", &directory).await;
    let device = TestDevice::connect("17", &[&b]).await;
    let mut watched = directory.watch("/tunnel/1/default/k/".into());
    let mut records = 0;
    while records == 0 {
        match watched.next().await.expect("goes on") {
            Update::Snapshot { entries, .. } => records = entries.len(),
            Update::Changes { changes, .. } => records += changes.len(),
            Update::Lost(error) => panic!("{error}"),
        }
    }
    drop(device);
    b.kill();
    loop {
        if let Update::Changes { changes, .. } = watched.next().await.expect("goes on")
            && matches!(changes[0], Change::Delete { .. })
        {
            return;
        }
    }
}
