//! A far end that dies: UNAVAILABLE for every call, and never a clean end.

use tokio::task::JoinSet;
use tonic::Code;

use crate::client::{call, open, run};
use crate::feed::Feed;
use crate::payload::{assert_pattern, requests};
use crate::proto::Script;
use crate::{Fixture, Kind, Path};

/// While the handler has said nothing yet.
pub async fn before_headers(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let script = Script::named("lost").receive_all().pend();
    let client = fixture.client.clone();
    let lost = tokio::spawn(async move { run(&client, kind, &script, requests(1, 1, 10)).await });
    fixture.probe.received("lost", 1).await;
    fixture.kill_far_end();
    let outcome = lost.await.expect("the call does not panic");
    outcome.expect_failure(Code::Unavailable);
    assert_eq!(outcome.messages, []);
}

/// After the headers, before a message.
pub async fn after_headers(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let script = Script::named("lost").receive_all().send_headers().pend();
    let request = script.request(futures::stream::iter(requests(1, 1, 10)));
    let ongoing = open(&fixture.client, kind, request)
        .await
        .expect("headers come");
    fixture.kill_far_end();
    let outcome = ongoing.outcome().await;
    outcome.expect_failure(Code::Unavailable);
    assert_eq!(outcome.messages, []);
}

/// After three responses have come.
pub async fn between_responses(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let script = Script::named("lost").receive_all().send(3, 1000, 1).pend();
    let request = script.request(futures::stream::iter(requests(1, 1, 10)));
    let mut ongoing = open(&fixture.client, kind, request)
        .await
        .expect("headers come");
    for seed in 1..=3 {
        assert_pattern(&ongoing.expect_next().await.payload, seed, 1000);
    }
    fixture.kill_far_end();
    let outcome = ongoing.outcome().await;
    outcome.expect_failure(Code::Unavailable);
    assert_eq!(outcome.messages, []);
}

/// In the middle of a flood of responses: what is read of it is right, as far as
/// it goes, and then the call fails.
pub async fn in_a_flood_of_responses(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let script = Script::named("lost")
        .receive_all()
        .send(u64::MAX, 65_536, 1);
    let request = script.request(futures::stream::iter(requests(1, 1, 10)));
    let mut ongoing = open(&fixture.client, kind, request)
        .await
        .expect("headers come");
    assert_pattern(&ongoing.expect_next().await.payload, 1, 65_536);
    fixture.kill_far_end();
    let outcome = ongoing.outcome().await;
    outcome.expect_failure(Code::Unavailable);
    for (message, seed) in outcome.messages.iter().zip(2..) {
        assert_pattern(&message.payload, seed, 65_536);
    }
}

/// While the caller is uploading.
pub async fn during_an_upload(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let (feed, mut watch) = Feed::endless(1, 65_536);
    let script = Script::named("lost").receive_all().summarize();
    let client = fixture.client.clone();
    let lost = tokio::spawn(async move { call(&client, kind, script.request(feed)).await });
    fixture.probe.received("lost", 3).await;
    fixture.kill_far_end();
    let outcome = lost.await.expect("the call does not panic");
    outcome.expect_failure(Code::Unavailable);
    assert_eq!(outcome.messages, []);
    watch.dropped().await;
}

/// A hundred calls of all kinds at once: every single one is told.
pub async fn fails_every_call_in_flight(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    let mut calls = JoinSet::new();
    for kind in Kind::ALL.into_iter().cycle().take(100) {
        let client = fixture.client.clone();
        calls.spawn(async move {
            let script = Script::named("lost").receive_all().pend();
            run(&client, kind, &script, requests(1, 1, 10)).await
        });
    }
    fixture
        .probe
        .until("lost", |record| record.started == 100)
        .await;
    fixture.kill_far_end();
    let mut failed = 0;
    while let Some(outcome) = calls.join_next().await {
        outcome
            .expect("no call panics")
            .expect_failure(Code::Unavailable);
        failed += 1;
    }
    assert_eq!(failed, 100);
}

/// Calls that are made afterwards fail in the same way, and do not wait.
pub async fn fails_calls_made_afterwards(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    let script = Script::named("lost").pend();
    let client = fixture.client.clone();
    let lost = tokio::spawn({
        let script = script.clone();
        async move { run(&client, Kind::Unary, &script, requests(1, 1, 10)).await }
    });
    fixture.probe.started("lost").await;
    fixture.kill_far_end();
    let outcome = lost.await.expect("the call does not panic");
    outcome.expect_failure(Code::Unavailable);
    for kind in Kind::ALL {
        let outcome = run(&fixture.client, kind, &script, requests(1, 1, 10)).await;
        outcome.expect_failure(Code::Unavailable);
    }
}
