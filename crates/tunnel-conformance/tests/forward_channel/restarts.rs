//! Rolling restarts of two backends behind one address, with calls under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tunnel_client::{Gateway, WhenNoTunnel};
use tunnel_conformance::{FaultProxy, Probe};

use crate::support::{
    Backend, LongCall, assert_usable, channel, client, eventually, guarded, tunnel_of,
};

const CALLERS: usize = 4;
const ROUNDS: usize = 6;

/// Longer than any test lasts.
const DRAIN: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_goes_on_at_the_sibling_of_a_backend_that_drains() {
    guarded(async {
        let probe = Probe::default();
        let first = Backend::start(&probe).await;
        let second = Backend::start(&probe).await;
        let gateway = Gateway::from(first.server.endpoint()).follow_siblings(true);
        let kept = channel(gateway).connect().await.expect("it opens");
        let client = client(&kept);
        let sibling = second.server.endpoint().uri().clone();
        first.handler.set_siblings([sibling]);
        first.handler.drain(DRAIN).await;
        // The first, which refuses, is not dialled while the sibling is.
        assert_usable(&client).await;
        second.has(1).await;
    })
    .await;
}

/// With a tunnel at the sibling, the channel would take up to an hour to return.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_whose_sibling_is_lost_returns_to_its_gateway_at_once() {
    guarded(async {
        let probe = Probe::default();
        let told = |_| DRAIN;
        let first = Backend::start_with(&probe, |builder| builder.return_spread(told)).await;
        let second = Backend::start(&probe).await;
        let renewed = Backend::start(&probe).await;
        let link = FaultProxy::to(first.server.address()).await;
        let gateway = Gateway::from(link.endpoint()).follow_siblings(true);
        let builder = channel(gateway).when_no_tunnel(WhenNoTunnel::Wait);
        let kept = builder.connect().await.expect("it opens");
        let client = client(&kept);
        let sibling = second.server.endpoint().uri().clone();
        first.handler.set_siblings([sibling]);
        first.handler.drain(DRAIN).await;
        assert_usable(&client).await;
        let at_sibling = tunnel_of(&kept);
        link.set_target(Some(renewed.server.address()));
        second.server.kill();
        eventually(|| tunnel_of(&kept) != at_sibling).await;
        assert_usable(&client).await;
        renewed.has(1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_two_backends_behind_one_address_fails_no_call() {
    guarded(async {
        let probe = Probe::default();
        let mut serving = Backend::start(&probe).await;
        let link = FaultProxy::to(serving.server.address()).await;
        let kept = channel(link.endpoint()).connect().await.expect("it opens");
        let client = client(&kept);

        let (done, made) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (client, done, made) = (client.clone(), done.clone(), made.clone());
            callers.spawn(async move {
                while !done.load(Ordering::SeqCst) {
                    assert_usable(&client).await;
                    made.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for round in 0..ROUNDS {
            let in_flight = LongCall::begin(&client, &probe, &format!("caught {round}")).await;
            let next = Backend::start(&probe).await;
            // New connections go to the next backend. Open connections stay.
            link.set_target(Some(next.server.address()));
            let draining = tokio::spawn({
                let handler = serving.handler.clone();
                async move { handler.drain(DRAIN).await }
            });
            next.has(1).await;
            let before = made.load(Ordering::SeqCst);
            eventually(|| made.load(Ordering::SeqCst) > before + 2 * CALLERS).await;
            in_flight.finish().await.expect_success();
            draining.await.expect("it does not panic");
            serving.server.kill();
            serving = next;
        }
        done.store(true, Ordering::SeqCst);
        while let Some(caller) = callers.join_next().await {
            caller.expect("no call failed");
        }
    })
    .await;
}

/// For a while a slow balancer still sends connections to the draining backend, which refuses them.
#[tokio::test(flavor = "multi_thread")]
async fn calls_wait_while_the_address_still_leads_to_the_backend_that_drains() {
    guarded(async {
        let probe = Probe::default();
        let first = Backend::start(&probe).await;
        let link = FaultProxy::to(first.server.address()).await;
        let kept = channel(link.endpoint())
            .when_no_tunnel(tunnel_client::WhenNoTunnel::Wait)
            .connect()
            .await
            .expect("it opens");
        let handle = kept.handle();
        let in_flight = LongCall::begin(&client(&kept), &probe, "caught").await;
        let draining = tokio::spawn({
            let handler = first.handler.clone();
            async move { handler.drain(DRAIN).await }
        });
        let mut links = handle.watch();
        let refused = links.wait_for(|links| links[0].attempts() > 3).await;
        drop(refused.expect("it runs"));
        let waiting = tokio::spawn({
            let client = client(&kept);
            async move { assert_usable(&client).await }
        });
        let second = Backend::start(&probe).await;
        link.set_target(Some(second.server.address()));
        waiting.await.expect("the call succeeds");
        in_flight.finish().await.expect_success();
        draining.await.expect("it does not panic");
    })
    .await;
}
