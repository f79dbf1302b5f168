//! Callers that drop a call, at every stage. The cases check the effect on the handler.

use tokio::task::JoinSet;
use tonic::Code;

use crate::client::{call, open, run};
use crate::feed::Feed;
use crate::payload::{assert_pattern, assert_sent, request, requests};
use crate::probe::Record;
use crate::proto::Script;
use crate::testing::assert_usable;
use crate::{Fixture, Kind, Path};

/// The caller drops the call's future before the handler has sent anything.
pub async fn before_headers(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let script = Script::named("cancelled").receive_all().pend();
    let client = fixture.client.clone();
    let call = tokio::spawn(async move { run(&client, kind, &script, requests(1, 1, 10)).await });
    // A handler that still reads may be told of the cut before it is dropped.
    fixture
        .probe
        .until("cancelled", |record| record.inputs_ended == 1)
        .await;
    call.abort();
    fixture.probe.dropped("cancelled").await;
    assert!(call.await.expect_err("the call was dropped").is_cancelled());
    assert_usable(&fixture.client).await;
}

/// The caller drops the responses before the first one has arrived.
pub async fn after_headers(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let script = Script::named("cancelled")
        .receive_all()
        .send_headers()
        .pend();
    let request = script.request(futures::stream::iter(requests(1, 1, 10)));
    let ongoing = open(&fixture.client, kind, request)
        .await
        .expect("headers come");
    drop(ongoing);
    fixture.probe.dropped("cancelled").await;
    assert_usable(&fixture.client).await;
}

/// The caller reads three responses and drops the rest.
pub async fn between_responses(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let script = Script::named("cancelled")
        .receive_all()
        .send(3, 1000, 1)
        .pend();
    let request = script.request(futures::stream::iter(requests(1, 1, 10)));
    let mut ongoing = open(&fixture.client, kind, request)
        .await
        .expect("headers come");
    for seed in 1..=3 {
        assert_pattern(&ongoing.expect_next().await.payload, seed, 1000);
    }
    drop(ongoing);
    fixture.probe.dropped("cancelled").await;
    assert_usable(&fixture.client).await;
}

/// The caller reads one of a flood of responses and drops the rest.
pub async fn in_a_flood_of_responses(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let script = Script::named("cancelled")
        .receive_all()
        .send(u64::MAX, 65_536, 1);
    let request = script.request(futures::stream::iter(requests(1, 1, 10)));
    let mut ongoing = open(&fixture.client, kind, request)
        .await
        .expect("headers come");
    assert_pattern(&ongoing.expect_next().await.payload, 1, 65_536);
    drop(ongoing);
    fixture.probe.dropped("cancelled").await;
    assert_usable(&fixture.client).await;
}

/// The caller drops a call whose request stream is still open.
pub async fn during_an_upload(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let (feed, mut watch) = Feed::open(requests(1, 3, 1000));
    let script = Script::named("cancelled").receive(3).pend();
    let client = fixture.client.clone();
    let upload = tokio::spawn(async move { call(&client, kind, script.request(feed)).await });
    fixture.probe.received("cancelled", 3).await;
    upload.abort();
    fixture.probe.dropped("cancelled").await;
    watch.dropped().await;
    assert_usable(&fixture.client).await;
}

/// The caller drops the call while the handler waits for the next request. The handler never sees
/// a clean end of the requests, so it cannot treat the call as a success.
pub async fn is_no_clean_end_of_an_upload(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let (feed, mut watch) = Feed::open(requests(1, 3, 1000));
    let script = Script::named("cancelled").receive_all().summarize();
    let client = fixture.client.clone();
    let upload = tokio::spawn(async move { call(&client, kind, script.request(feed)).await });
    fixture.probe.received("cancelled", 3).await;
    upload.abort();
    let record = fixture.probe.over("cancelled").await;
    assert_eq!(
        record.inputs_ended, 0,
        "a cut upload is no clean end: {record:?}"
    );
    assert_eq!(record.sent, 0, "nothing was answered: {record:?}");
    watch.dropped().await;
    assert_usable(&fixture.client).await;
}

/// The caller drops an upload that is blocked by flow control, because the handler does not read.
pub async fn during_an_upload_nobody_reads(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let (feed, mut watch) = Feed::endless(1, 65_536);
    let script = Script::named("cancelled").receive(1).pend();
    let client = fixture.client.clone();
    let upload = tokio::spawn(async move { call(&client, kind, script.request(feed)).await });
    fixture.probe.received("cancelled", 1).await;
    upload.abort();
    fixture.probe.dropped("cancelled").await;
    watch.dropped().await;
    assert_eq!(fixture.probe.record("cancelled").received, 1);
    assert_usable(&fixture.client).await;
}

/// The caller drops the responses of a call whose requests stay open. That ends the whole call.
pub async fn by_dropping_the_responses_alone(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    let (feed, mut watch) = Feed::open(requests(1, 2, 100));
    let script = Script::named("cancelled").echo_all();
    let ongoing = open(&fixture.client, Kind::Bidi, script.request(feed)).await;
    let mut ongoing = ongoing.expect("headers come");
    for seed in 1..=2 {
        assert_pattern(&ongoing.expect_next().await.payload, seed, 100);
    }
    drop(ongoing);
    fixture.probe.dropped("cancelled").await;
    watch.dropped().await;
    assert_usable(&fixture.client).await;
}

/// tonic's cancellation handle ends the call on both sides.
pub async fn by_the_cancellation_handle(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let (feed, mut watch) = Feed::open(requests(1, 2, 100));
    let mut request = Script::named("cancelled")
        .receive_all()
        .pend()
        .request(feed);
    let handle = request.cancellation_handle();
    let client = fixture.client.clone();
    let upload = tokio::spawn(async move { call(&client, kind, request).await });
    fixture.probe.received("cancelled", 2).await;
    handle.cancel();
    let outcome = upload.await.expect("the call does not panic");
    outcome.expect_failure(Code::Cancelled);
    fixture.probe.over("cancelled").await;
    watch.dropped().await;
    assert_usable(&fixture.client).await;
}

/// A request stream that outlives its handler also ends with an error when the call is cancelled.
pub async fn reaches_a_detached_request_stream(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let (feed, _watch) = Feed::open(requests(1, 2, 100));
    let script = Script::named("cancelled").detach().pend();
    let client = fixture.client.clone();
    let upload = tokio::spawn(async move { call(&client, kind, script.request(feed)).await });
    fixture.probe.received("cancelled", 2).await;
    upload.abort();
    let told = Record::input_is_over;
    let record = fixture.probe.until("cancelled", told).await;
    assert_eq!(
        record.inputs_ended, 0,
        "a cut upload is no clean end: {record:?}"
    );
    fixture.probe.dropped("cancelled").await;
    assert_usable(&fixture.client).await;
}

/// Every second of a hundred calls is dropped. The others are not affected.
pub async fn of_one_call_leaves_the_others(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    let mut kept = JoinSet::new();
    let mut dropped = JoinSet::new();
    for (seed, kind) in (0..100).zip(Kind::ALL.into_iter().cycle()) {
        let client = fixture.client.clone();
        let (name, calls) = match seed / 4 % 2 {
            0 => ("kept", &mut kept),
            _ => ("dropped", &mut dropped),
        };
        calls.spawn(async move {
            let script = Script::named(name).wait("on").send(1, 5000, seed);
            let outcome = run(&client, kind, &script, vec![request(seed, 5000)]).await;
            assert_sent(outcome.expect_success(), 1, 5000, seed);
        });
    }
    let count = dropped.len() as u64;
    fixture
        .probe
        .until("kept", |record| record.started == 100 - count)
        .await;
    fixture
        .probe
        .until("dropped", |record| record.started == count)
        .await;
    dropped.shutdown().await;
    fixture
        .probe
        .until("dropped", |record| record.dropped == count)
        .await;
    fixture.probe.open("on");
    while let Some(call) = kept.join_next().await {
        call.expect("the call is as it should be");
    }
    let record = fixture.probe.record("kept");
    assert_eq!((record.finished, record.dropped), (100 - count, 0));
}

/// Two hundred calls are started and dropped. The channel stays usable.
pub async fn two_hundred_times_in_a_row(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    for round in 1..=200 {
        let script = Script::named("cancelled").pend();
        let client = fixture.client.clone();
        let call =
            tokio::spawn(
                async move { run(&client, Kind::Unary, &script, requests(1, 1, 10)).await },
            );
        fixture
            .probe
            .until("cancelled", |record| record.started == round)
            .await;
        call.abort();
        fixture
            .probe
            .until("cancelled", |record| record.dropped == round)
            .await;
    }
    assert_usable(&fixture.client).await;
}
