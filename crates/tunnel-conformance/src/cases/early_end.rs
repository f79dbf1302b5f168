//! Handlers that end their call during the caller's upload.
//!
//! The feeds are endless. A caller that waited for the end of the upload would never return, and a
//! caller that continued the upload would never drop the feed.

use tonic::Code;

use crate::client::call;
use crate::feed::Feed;
use crate::payload::{assert_sent, received, requests};
use crate::proto::Script;
use crate::testing::assert_usable;
use crate::{Fixture, Kind, Path};

const SIZE: usize = 65_536;

/// The handler answers OK before the upload ends.
pub async fn a_success_ends_the_upload(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let (feed, mut watch) = Feed::endless(1, SIZE);
    let script = Script::named("enough").receive(3).summarize();
    let outcome = call(&fixture.client, kind, script.request(feed)).await;
    let [response] = outcome.expect_success() else {
        panic!("one response should come, not {}", outcome.messages.len());
    };
    assert_eq!(response.received, Some(received(&requests(1, 3, SIZE))));
    watch.dropped().await;
    assert_eq!(fixture.probe.record("enough").received, 3);
    assert_usable(&fixture.client).await;
}

/// The handler fails before the upload ends.
pub async fn a_failure_ends_the_upload(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let (feed, mut watch) = Feed::endless(1, SIZE);
    let script = Script::named("enough")
        .receive(3)
        .fail(Code::OutOfRange, "enough");
    let outcome = call(&fixture.client, kind, script.request(feed)).await;
    assert_eq!(outcome.expect_failure(Code::OutOfRange).message(), "enough");
    watch.dropped().await;
    assert_usable(&fixture.client).await;
}

/// The handler fails without reading.
pub async fn a_refusal_ends_the_upload(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let (feed, mut watch) = Feed::endless(1, SIZE);
    let script = Script::named("no").fail(Code::PermissionDenied, "no");
    let outcome = call(&fixture.client, kind, script.request(feed)).await;
    assert_eq!(
        outcome.expect_failure(Code::PermissionDenied).message(),
        "no"
    );
    watch.dropped().await;
    assert_usable(&fixture.client).await;
}

/// Responses in flight when the handler ends still arrive.
pub async fn responses_before_an_early_end_arrive(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    let (feed, mut watch) = Feed::endless(1, SIZE);
    let script = Script::named("enough").receive(2).send(20, SIZE, 70);
    let outcome = call(&fixture.client, Kind::Bidi, script.request(feed)).await;
    assert_sent(outcome.expect_success(), 20, SIZE, 70);
    watch.dropped().await;
    assert_usable(&fixture.client).await;
}

/// The end also reaches a caller that is blocked by flow control.
pub async fn an_upload_nobody_reads_is_ended(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let (feed, mut watch) = Feed::endless(1, SIZE);
    let script = Script::named("deaf")
        .wait("now")
        .fail(Code::Aborted, "not listening");
    let client = fixture.client.clone();
    let upload = tokio::spawn(async move { call(&client, kind, script.request(feed)).await });
    fixture.probe.started("deaf").await;
    fixture.probe.open("now");
    let outcome = upload.await.expect("the call does not panic");
    assert_eq!(
        outcome.expect_failure(Code::Aborted).message(),
        "not listening"
    );
    watch.dropped().await;
    assert_usable(&fixture.client).await;
}
