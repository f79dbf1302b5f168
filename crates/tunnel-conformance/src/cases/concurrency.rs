//! Many concurrent calls on one channel.

use tokio::task::JoinSet;

use crate::client::run;
use crate::payload::{assert_pattern, assert_sent, received, request, requests};
use crate::proto::Script;
use crate::{Fixture, Kind, Path};

/// A thousand unary calls whose handlers all run at the same time.
pub async fn a_thousand_unary_calls_at_once(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    let mut calls = JoinSet::new();
    for seed in 0..1000 {
        let client = fixture.client.clone();
        calls.spawn(async move {
            let script = Script::named("crowd").wait("all here").echo_all();
            let outcome = run(&client, Kind::Unary, &script, vec![request(seed, 500)]).await;
            assert_pattern(&outcome.expect_success()[0].payload, seed, 500);
        });
    }
    let crowd = fixture
        .probe
        .until("crowd", |record| record.started == 1000)
        .await;
    assert_eq!(crowd.finished, 0, "all are at work at the same time");
    fixture.probe.open("all here");
    while let Some(call) = calls.join_next().await {
        call.expect("the call is as it should be");
    }
    assert_eq!(fixture.probe.record("crowd").finished, 1000);
}

/// A thousand calls of all four kinds whose handlers all run at the same time.
pub async fn a_thousand_calls_of_all_kinds_at_once(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    let mut calls = JoinSet::new();
    for (seed, kind) in (0..1000).zip(Kind::ALL.into_iter().cycle()) {
        let client = fixture.client.clone();
        calls.spawn(async move {
            let sent = requests(seed, kind.requests(4), 300);
            let more = kind.responses(4) - 1;
            let script = Script::named("crowd")
                .receive_all()
                .wait("all here")
                .summarize()
                .send(more, 300, seed);
            let outcome = run(&client, kind, &script, sent.clone()).await;
            let (first, rest) = outcome.expect_success().split_first().expect("a response");
            assert_eq!(first.received, Some(received(&sent)));
            assert_sent(rest, more, 300, seed);
        });
    }
    let crowd = fixture
        .probe
        .until("crowd", |record| record.inputs_ended == 1000)
        .await;
    assert_eq!(crowd.finished, 0, "all are at work at the same time");
    fixture.probe.open("all here");
    while let Some(call) = calls.join_next().await {
        call.expect("the call is as it should be");
    }
    assert_eq!(fixture.probe.record("crowd").finished, 1000);
}

/// Concurrent large transfers in both directions. No data is mixed up.
pub async fn large_transfers_run_side_by_side(path: &dyn Path) {
    const SIZE: usize = 100_000;
    let fixture = Fixture::start(path).await;
    let mut calls = JoinSet::new();
    for (number, kind) in (0..16).zip(Kind::ALL.into_iter().cycle()) {
        let client = fixture.client.clone();
        calls.spawn(async move {
            let seed = number * 1000;
            let sent = requests(seed, kind.requests(20), SIZE);
            let more = kind.responses(20) - 1;
            let script = Script::named("large")
                .receive_all()
                .summarize()
                .send(more, SIZE, seed);
            let outcome = run(&client, kind, &script, sent.clone()).await;
            let (first, rest) = outcome.expect_success().split_first().expect("a response");
            assert_eq!(first.received, Some(received(&sent)));
            assert_sent(rest, more, SIZE, seed);
        });
    }
    while let Some(call) = calls.join_next().await {
        call.expect("the call is as it should be");
    }
}
