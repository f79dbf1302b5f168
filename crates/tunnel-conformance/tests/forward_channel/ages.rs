//! Tunnels that are replaced at a maximum age, and several tunnels per gateway.

use std::collections::HashSet;
use std::time::Duration;

use tunnel_conformance::Probe;

use crate::support::{
    Backend, LongCall, assert_usable, channel, client, eventually, guarded, tunnel_of,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_old_tunnel_is_replaced_before_it_is_drained_and_no_call_notices() {
    guarded(async {
        let probe = Probe::default();
        let backend = Backend::start(&probe).await;
        let kept = channel(backend.server.endpoint()).max_tunnel_age(Duration::from_millis(100));
        let kept = kept.connect().await.expect("it opens");
        let client = client(&kept);
        let first = tunnel_of(&kept).expect("one tunnel");
        let call = LongCall::begin(&client, &probe, "in the old one").await;
        let mut seen = HashSet::from([first]);
        while seen.len() < 4 {
            assert!(!kept.tunnels().is_empty(), "one always takes calls");
            assert_usable(&client).await;
            seen.extend(tunnel_of(&kept));
        }
        call.finish().await.expect_success();
        // The old tunnels end when they have no calls.
        eventually(|| backend.handler.tunnels().len() == 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_tunnels_share_the_calls_and_cover_for_each_other() {
    guarded(async {
        let probe = Probe::default();
        let backend = Backend::start(&probe).await;
        let kept = channel(backend.server.endpoint()).tunnels_per_gateway(3);
        let kept = kept.connect().await.expect("it opens");
        kept.handle().all_connected().await.expect("it runs");
        let client = client(&kept);
        let mut calls = Vec::new();
        for number in 0..30 {
            calls.push(LongCall::begin(&client, &probe, &format!("call {number}")).await);
        }
        for tunnel in kept.tunnels() {
            assert!(tunnel.stats().streams > 0, "{tunnel:?}");
        }
        for call in calls {
            call.finish().await.expect_success();
        }
        for tunnel in kept.tunnels() {
            tunnel.close().await;
            assert_usable(&client).await;
        }
    })
    .await;
}
