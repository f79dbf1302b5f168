//! Gateways of one fleet: what operators see and do at any of them.

use super::*;
use crate::gateway::admin::tests::commands::run_at;

/// Waits until something holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
    assert!(waited.is_ok(), "waited in vain until {what}");
}

/// Gateways that reach each other.
async fn start(names: &[&str]) -> (MemoryDirectory, Vec<Gateway>) {
    let directory = MemoryDirectory::new();
    let mut gateways = Vec::new();
    for name in names {
        gateways.push(Gateway::start_in(&directory, name).await);
    }
    for gateway in &gateways {
        until("there are hops", async || {
            gateway.fleet.peers().len() == names.len() - 1
        })
        .await;
    }
    (directory, gateways)
}

/// A gateway that is in the directory, and cannot be reached.
async fn ghost(directory: &MemoryDirectory) -> Fleet {
    let fleet = Fleet::builder("ghost").directory(directory.clone());
    let fleet = fleet.advertise("http://127.0.0.1:1").zone("south").build();
    let handler = TunnelServiceHandler::builder().build();
    fleet.join(&handler).await.expect("joined");
    fleet
}

/// The devices of a page, with the gateways of their tunnels.
fn places(page: &api::ListResponse) -> Vec<(&str, Vec<&str>)> {
    let places = page.devices.iter().map(|device| {
        let gateways = device.tunnels.iter().map(|tunnel| &*tunnel.gateway);
        (&*device.key, gateways.collect())
    });
    places.collect()
}

async fn page(gateway: &mut Gateway, request: api::ListRequest) -> api::ListResponse {
    let page = gateway.admin.list(request).await;
    page.expect("legal").into_inner()
}

fn key(key: &str) -> String {
    key.to_owned()
}

#[tokio::test]
async fn every_gateway_lists_all_devices_with_the_tunnels_of_all_gateways() {
    let (_directory, mut gateways) = start(&["a", "b"]).await;
    let _at_a = gateways[0].devices(&[key("both"), key("only-a")]).await;
    let at_b = gateways[1].devices(&[key("both"), key("only-b")]).await;
    for gateway in &mut gateways {
        let all = page(gateway, api::ListRequest::default()).await;
        let expected = [
            ("both", vec!["a", "b"]),
            ("only-a", vec!["a"]),
            ("only-b", vec!["b"]),
        ];
        assert_eq!(places(&all), expected);
        assert!(all.next_page_token.is_empty() && all.unreachable.is_empty());
        let mut request = api::ListRequest {
            page_size: 1,
            ..api::ListRequest::default()
        };
        for (key, gateways) in expected {
            let one = page(gateway, request.clone()).await;
            assert_eq!(places(&one), [(key, gateways)]);
            request.page_token = one.next_page_token;
        }
        assert_eq!(request.page_token, "");
        let some = api::ListRequest {
            keys: vec![key("only-b"), key("nobody"), key("both")],
            ..api::ListRequest::default()
        };
        let some = page(gateway, some).await;
        assert_eq!(
            places(&some),
            [("both", vec!["a", "b"]), ("only-b", vec!["b"])]
        );
    }
    // It goes away at one gateway, and is connected in the fleet.
    at_b[0].close().await;
    let in_state = |state: api::State| api::ListRequest {
        state: state.into(),
        ..api::ListRequest::default()
    };
    let [a, b] = &mut gateways[..] else {
        unreachable!("there are two");
    };
    until("the tunnel is closed", async || {
        b.presence
            .device("both")
            .is_some_and(|d| d.tunnels.is_empty())
    })
    .await;
    assert_eq!(places(&page(b, in_state(api::State::Away)).await), []);
    let connected = page(b, in_state(api::State::Connected)).await;
    assert_eq!(places(&connected)[0], ("both", vec!["a"]));
    at_b[1].close().await;
    until("it is away everywhere", async || {
        places(&page(a, in_state(api::State::Away)).await) == [("only-b", vec![])]
    })
    .await;
}

#[tokio::test]
async fn a_kick_reaches_a_device_at_another_gateway_and_the_watch_sees_it() {
    let (directory, mut gateways) = start(&["a", "b"]).await;
    let mut events = gateways[0].watch("").await;
    let (_, synced) = events.until(|_| true).await;
    assert_eq!(synced, Event::Synced(api::Synced {}));
    let _device = gateways[1].devices(&[key("x")]).await;
    let opened = events.next().await.expect("an event");
    assert_eq!((&*opened.key, &*opened.gateway), ("x", "b"));
    let kick = api::KickRequest {
        key: key("x"),
        reason: "new firmware".to_owned(),
    };
    let kicked = gateways[0].admin.kick(kick).await.expect("kicked");
    assert_eq!(kicked.into_inner().tunnels, 1);
    let closed = events.next().await.expect("an event");
    assert_eq!((&*closed.key, &*closed.gateway), ("x", "b"));
    assert!(
        matches!(&closed.event, Some(Event::Closed(c)) if c.reason.contains("new firmware")),
        "{closed:?}"
    );
    let stats = gateways[0].stats().await;
    let rows = stats.gateways.iter();
    let rows: Vec<_> = rows
        .map(|row| (&*row.name, row.ready, row.reachable))
        .collect();
    assert_eq!(rows, [("a", true, true), ("b", true, true)]);
    assert_eq!((&*stats.gateway, &*stats.gateways[0].zone), ("a", "north"));

    // A gateway comes, with a device, and is drained.
    let mut c = Gateway::start_in(&directory, "c").await;
    let _device_of_c = c.devices(&[key("y")]).await;
    let is_up = |event: &Event| matches!(event, Event::GatewayUp(_));
    events.until(is_up).await;
    let (key, _) = events
        .until(|event| matches!(event, Event::Present(_) | Event::Opened(_)))
        .await;
    assert_eq!(key, "y");
    let drained = c.admin.drain(api::DrainRequest::default());
    drained.await.expect("drained");
    let (_, down) = events
        .until(|event| matches!(event, Event::GatewayDown(_)))
        .await;
    let reason = "it is drained".to_owned();
    assert_eq!(down, Event::GatewayDown(api::GatewayDown { reason }));
}

#[tokio::test]
async fn a_gateway_that_cannot_be_reached_is_named() {
    let (directory, mut gateways) = start(&["a", "b"]).await;
    let ghost = ghost(&directory).await;
    let [a, _] = &mut gateways[..] else {
        unreachable!("there are two");
    };
    until("it is known", async || a.fleet.gateways().len() == 3).await;
    let expected = ["ghost"];
    assert_eq!(
        page(a, api::ListRequest::default()).await.unreachable,
        expected
    );
    let stats = a.stats().await;
    assert_eq!(stats.unreachable, expected);
    let row = &stats.gateways[2];
    assert_eq!(
        (&*row.name, &*row.zone, row.reachable),
        ("ghost", "south", false)
    );
    let kick = api::KickRequest {
        key: key("x"),
        ..api::KickRequest::default()
    };
    let kicked = a.admin.kick(kick).await.expect("kicked").into_inner();
    assert_eq!(kicked.unreachable, expected);
    let mut events = a.watch("").await;
    let down = events.next().await.expect("an event");
    assert!(
        matches!(down.event, Some(Event::GatewayDown(_))) && down.gateway == "ghost",
        "{down:?}"
    );
    let (_, synced) = events.until(|_| true).await;
    assert_eq!(synced, Event::Synced(api::Synced {}));

    let list = run_at(a, &["list"]).await;
    assert!(list.contains("not reached: ghost"), "{list}");
    let table = run_at(a, &["stats"]).await;
    let line = table.lines().find(|line| line.starts_with("ghost"));
    assert!(
        line.is_some_and(|line| line.contains("not reached")),
        "{table}"
    );
    ghost.leave().await;
    until("it has left", async || {
        page(a, api::ListRequest::default())
            .await
            .unreachable
            .is_empty()
    })
    .await;
}
