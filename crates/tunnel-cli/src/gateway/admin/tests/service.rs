//! The service, as its clients see it.

use super::*;

#[tokio::test]
async fn devices_are_listed_in_pages_and_by_filters() {
    let mut gateway = Gateway::start().await;
    let keys: Vec<_> = (0..25).map(|n| format!("device/{n:02}")).collect();
    let devices = gateway.devices(&keys).await;
    let mut found = Vec::new();
    let mut pages = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = api::ListRequest {
            page_size: 10,
            page_token,
            ..Default::default()
        };
        let (keys, next) = gateway.list(request).await;
        pages.push(keys.len());
        found.extend(keys);
        page_token = next;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(pages, [10, 10, 5]);
    assert_eq!(found, keys);

    let filtered = api::ListRequest {
        filter: "dev*/1?".to_owned(),
        page_size: 10,
        ..Default::default()
    };
    let (keys, next) = gateway.list(filtered.clone()).await;
    assert_eq!(
        (keys.len(), next.as_str()),
        (10, ""),
        "a full page is the last"
    );

    let mut events = gateway.watch("").await;
    devices[3].close().await;
    events
        .until(|event| matches!(event, Event::Closed(_)))
        .await;
    let deny = |key: &str| api::DenyRequest {
        key: key.to_owned(),
        ..Default::default()
    };
    gateway.admin.deny(deny("device/04")).await.expect("denied");
    gateway.admin.deny(deny("unknown")).await.expect("denied");
    events
        .until(|event| matches!(event, Event::Closed(_)))
        .await;
    for (state, expected) in [
        (api::State::Away, vec!["device/03"]),
        (api::State::Denied, vec!["device/04", "unknown"]),
    ] {
        let request = api::ListRequest {
            state: state.into(),
            ..Default::default()
        };
        assert_eq!(gateway.list(request).await.0, expected);
    }
    let request = api::ListRequest {
        state: api::State::Connected.into(),
        page_size: 5,
        ..Default::default()
    };
    let (keys, token) = gateway.list(request).await;
    assert_eq!((keys.len(), keys[3].as_str()), (5, "device/05"));

    for illegal in [
        api::ListRequest {
            page_token: token,
            ..filtered
        },
        api::ListRequest {
            page_token: "?".to_owned(),
            ..Default::default()
        },
        api::ListRequest {
            filter: "[".to_owned(),
            ..Default::default()
        },
        api::ListRequest {
            state: 99,
            ..Default::default()
        },
        api::ListRequest {
            page_size: -1,
            ..Default::default()
        },
    ] {
        let status = gateway.admin.list(illegal).await.expect_err("illegal");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
}

#[tokio::test]
async fn a_tunnel_is_shown_with_its_labels_and_no_other_metadata() {
    let mut gateway = Gateway::start().await;
    let _devices = gateway.devices(&["x".to_owned()]).await;
    let page = gateway
        .admin
        .list(api::ListRequest::default())
        .await
        .expect("legal");
    let device = &page.get_ref().devices[0];
    let tunnel = &device.tunnels[0];
    assert_eq!(device.state(), api::State::Connected);
    assert!(tunnel.peer.starts_with("127.0.0.1:") && !tunnel.draining);
    assert!(tunnel.agent.starts_with("tonic/"), "{}", tunnel.agent);
    assert_eq!(
        tunnel.labels.iter().collect::<Vec<_>>(),
        [(&"site".to_owned(), &"north".to_owned())]
    );
    let json = api::json("Device", device).expect("a message of the API");
    assert!(
        json.contains(r#""labels":{"site":"north"}"#) && !json.contains("hidden"),
        "{json}"
    );
}

#[tokio::test]
async fn a_kick_ends_the_tunnels_of_a_device_and_the_device_comes_back() {
    let mut gateway = Gateway::start().await;
    let keys = ["x".to_owned(), "y".to_owned()];
    let _devices = gateway.devices(&keys).await;
    let mut events = gateway.watch("x").await;
    let (key, _) = events
        .until(|event| matches!(event, Event::Present(_)))
        .await;
    assert_eq!(key, "x");
    let kick = api::KickRequest {
        key: "x".to_owned(),
        reason: "new firmware".to_owned(),
    };
    let kicked = gateway.admin.kick(kick).await.expect("kicked").into_inner();
    assert_eq!(kicked.tunnels, 1);
    let (_, closed) = events
        .until(|event| matches!(event, Event::Closed(_)))
        .await;
    assert!(matches!(closed, Event::Closed(c) if c.reason.contains("kicked: new firmware")));
    events
        .until(|event| matches!(event, Event::Opened(_)))
        .await;
    let stats = gateway.stats().await;
    assert_eq!((stats.tunnels_open, stats.tunnels_total), (2, 3));
    let none = gateway.admin.kick(api::KickRequest::default()).await;
    assert_eq!(none.expect_err("no key").code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_denied_device_is_refused_until_it_is_allowed() {
    let mut gateway = Gateway::start().await;
    let _devices = gateway.devices(&["x".to_owned()]).await;
    let mut events = gateway.watch("x").await;
    let deny = api::DenyRequest {
        key: "x".to_owned(),
        reason: "stolen".to_owned(),
        duration: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
    };
    let mut deny = Request::new(deny);
    deny.extensions_mut().insert(crate::identity::Identity {
        name: "alice".into(),
        proof: crate::identity::Proof::Claimed,
    });
    let denied = gateway.admin.deny(deny).await.expect("denied").into_inner();
    let denial = denied.denial.expect("a denial");
    assert_eq!((denied.tunnels, denial.reason.as_str()), (1, "stolen"));
    let seconds = |time: Option<prost_types::Timestamp>| time.map(|time| time.seconds);
    assert_eq!(
        seconds(denial.until),
        seconds(denial.since).map(|s| s + 3600)
    );
    events
        .until(|event| matches!(event, Event::Denied(d) if *d == denial))
        .await;
    let (_, refused) = events
        .until(|event| matches!(event, Event::Refused(_)))
        .await;
    assert!(matches!(refused, Event::Refused(r) if r.reason == "\"x\" is denied: stolen"));

    let listed = gateway
        .admin
        .list(api::ListRequest::default())
        .await
        .expect("legal");
    let device = listed.get_ref().devices[0].clone();
    assert_eq!(device.state(), api::State::Denied);
    assert_eq!(device.last_error, "\"x\" is denied: stolen");
    assert_eq!(device.denial.as_ref(), Some(&denial));
    let all = gateway
        .admin
        .list_denied(api::ListDeniedRequest {})
        .await
        .expect("legal");
    assert_eq!(all.into_inner().denials, [denial]);

    let allow = api::AllowRequest {
        key: "x".to_owned(),
    };
    let allowed = gateway.admin.allow(allow.clone()).await.expect("allowed");
    assert!(allowed.get_ref().was_denied);
    events
        .until(|event| matches!(event, Event::Allowed(_)))
        .await;
    events
        .until(|event| matches!(event, Event::Opened(_)))
        .await;
    let again = gateway.admin.allow(allow).await.expect("allowed");
    assert!(!again.get_ref().was_denied);
}

#[tokio::test]
async fn the_counters_of_closed_tunnels_are_not_forgotten() {
    let mut gateway = Gateway::start().await;
    let devices = gateway.devices(&["x".to_owned(), "y".to_owned()]).await;
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    assert_eq!(gateway.presence.tunnels_of_address(local), 2);
    for key in ["x", "y", "y"] {
        let mut device = HealthClient::new(gateway.handler.key_as_channel(key));
        device
            .check(HealthCheckRequest::default())
            .await
            .expect("healthy");
    }
    let before = gateway.stats().await;
    assert_eq!((before.calls_total, before.devices_connected), (3, 2));
    assert_eq!(before.messages_received, 3);
    assert!(before.bytes_received > 0 && before.ready);

    let mut events = gateway.watch("").await;
    devices[0].close().await;
    events
        .until(|event| matches!(event, Event::Closed(_)))
        .await;
    let after = gateway.stats().await;
    assert_eq!((after.calls_total, after.devices_connected), (3, 1));
    assert_eq!(after.bytes_received, before.bytes_received);
    assert_eq!((after.tunnels_open, after.tunnels_total), (1, 2));
    assert_eq!(gateway.presence.tunnels_of_address(local), 1);
    let away = gateway.presence.away_message("x");
    assert_eq!(away, "\"x\" is not connected (last seen 0 s ago)");
}

#[tokio::test]
async fn a_drain_answers_when_no_tunnel_is_left_and_ends_the_watch() {
    let mut gateway = Gateway::start().await;
    let _devices = gateway.devices(&["x".to_owned()]).await;
    let check = api::DrainRequest {
        check: true,
        ..Default::default()
    };
    let checked = gateway
        .admin
        .drain(check)
        .await
        .expect("legal")
        .into_inner();
    assert!(!checked.draining && !checked.drained && checked.tunnels_open == 1);
    let mut events = gateway.watch("").await;
    let drained = gateway.admin.drain(api::DrainRequest::default()).await;
    let drained = drained.expect("drained").into_inner();
    assert!(drained.draining && drained.drained && drained.tunnels_open == 0);
    assert!(!gateway.stats().await.ready);
    events
        .until(|event| matches!(event, Event::Closed(_)))
        .await;
    while events.next().await.is_some() {}
}

#[tokio::test]
async fn a_slow_watcher_is_told_how_much_it_has_missed() {
    let mut gateway = Gateway::start().await;
    let mut events = gateway.watch("").await;
    for _ in 0..5000 {
        gateway.presence.allowed("x");
    }
    let (_, missed) = events
        .until(|event| matches!(event, Event::Missed(_)))
        .await;
    assert_eq!(
        missed,
        Event::Missed(api::Missed {
            events: 5000 - 4096
        })
    );
    let (key, _) = events
        .until(|event| matches!(event, Event::Allowed(_)))
        .await;
    assert_eq!(key, "x");
}
