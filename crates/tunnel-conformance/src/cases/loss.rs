//! Loss of the server: every call ends with UNAVAILABLE, and never cleanly.

use tokio::task::JoinSet;
use tonic::Code;

use crate::client::{call, open, run};
use crate::feed::Feed;
use crate::payload::{assert_pattern, requests};
use crate::proto::Script;
use crate::{Fixture, Kind, Path};

/// The server is lost before the handler has sent anything.
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

/// The server is lost after the headers and before a message.
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

/// The server is lost after three responses.
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

/// The server is lost during a flood of responses. The responses that arrive are correct, and then
/// the call fails.
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

/// The server is lost during an upload.
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

/// The server is lost during a hundred calls of all kinds. Every call fails.
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

/// Calls after the loss fail in the same way, without waiting.
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
