//! Streams and channels do not affect each other.

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::task::JoinSet;

use crate::client::{call, open, run};
use crate::feed::{Feed, FeedWatch};
use crate::payload::{assert_sent, received, request, requests};
use crate::proto::Script;
use crate::testing::assert_usable;
use crate::{Client, Fixture, Kind, Ongoing, Path};

const SIZE: usize = 65_536;
/// The number of messages that make 64 MiB: more than all windows and buffers between the ends.
const COUNT: u64 = 1024;

/// A hundred calls of all kinds, all of which must succeed.
async fn a_hundred_calls(client: &Client) {
    let mut calls = JoinSet::new();
    for (seed, kind) in (0..100).zip(Kind::ALL.into_iter().cycle()) {
        let client = client.clone();
        calls.spawn(async move {
            let script = Script::named("passing").receive_all().send(1, 20_000, seed);
            let outcome = run(&client, kind, &script, vec![request(seed, 20_000)]).await;
            assert_sent(outcome.expect_success(), 1, 20_000, seed);
        });
    }
    while let Some(call) = calls.join_next().await {
        call.expect("the call is as it should be");
    }
}

async fn open_unread(fixture: &Fixture, name: &str, kind: Kind) -> Ongoing {
    let script = Script::named(name).receive_all().send(COUNT, SIZE, 1);
    let request = script.request(futures::stream::iter(requests(1, 1, 10)));
    open(&fixture.client, kind, request)
        .await
        .expect("headers come")
}

/// Reads a stream that was not read before, and checks that nothing was lost.
async fn read_all(ongoing: Ongoing) {
    let outcome = ongoing.outcome().await;
    assert_sent(outcome.expect_success(), COUNT, SIZE, 1);
}

/// A caller stops reading a stream. A hundred other calls succeed, and the stream is complete when
/// it is read at last.
pub async fn an_unread_stream_stops_nobody(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let unread = open_unread(&fixture, "unread", kind).await;
    a_hundred_calls(&fixture.client).await;
    let sent = fixture.probe.record("unread").sent;
    assert!(
        sent < COUNT,
        "the far side was not held back: it has sent all"
    );
    read_all(unread).await;
}

/// The same with eight unread streams.
pub async fn eight_unread_streams_stop_nobody(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    let mut unread = Vec::new();
    for kind in Kind::DOWNLOADS.into_iter().cycle().take(8) {
        unread.push(open_unread(&fixture, "unread", kind).await);
    }
    a_hundred_calls(&fixture.client).await;
    let sent = fixture.probe.record("unread").sent;
    assert!(
        sent < 8 * COUNT,
        "the far side was not held back: it has sent all"
    );
    drop(unread.split_off(1));
    fixture
        .probe
        .until("unread", |record| record.dropped == 7)
        .await;
    read_all(unread.remove(0)).await;
}

type Upload = tokio::task::JoinHandle<crate::Outcome>;

fn upload_unread(fixture: &Fixture, name: &str, kind: Kind) -> (Upload, FeedWatch) {
    let requests = futures::stream::iter(1..=COUNT).map(|seed| request(seed, SIZE));
    let (feed, watch) = Feed::new(requests);
    let script = Script::named(name)
        .wait("read now")
        .receive_all()
        .summarize();
    let client = fixture.client.clone();
    let upload = tokio::spawn(async move { call(&client, kind, script.request(feed)).await });
    (upload, watch)
}

async fn assert_uploaded(upload: Upload) {
    let outcome = upload.await.expect("the call does not panic");
    let tally = outcome.expect_success()[0].received;
    assert_eq!(tally, Some(received(&requests(1, COUNT, SIZE))));
}

/// A handler does not read its upload. A hundred other calls succeed, and the upload is complete
/// when it is read at last.
pub async fn an_upload_nobody_reads_stops_nobody(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let (upload, watch) = upload_unread(&fixture, "unread", kind);
    fixture.probe.started("unread").await;
    a_hundred_calls(&fixture.client).await;
    assert!(
        watch.taken() < COUNT,
        "the caller was not held back: it has sent all"
    );
    fixture.probe.open("read now");
    assert_uploaded(upload).await;
}

/// The same with eight unread uploads.
pub async fn eight_uploads_nobody_reads_stop_nobody(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    let (first, _watch) = upload_unread(&fixture, "first", Kind::ClientStream);
    let others: Vec<_> = (0..7)
        .map(|_| upload_unread(&fixture, "more", Kind::Bidi))
        .collect();
    fixture.probe.started("first").await;
    fixture
        .probe
        .until("more", |record| record.started == 7)
        .await;
    a_hundred_calls(&fixture.client).await;
    for (upload, watch) in others {
        assert!(
            watch.taken() < COUNT,
            "the caller was not held back: it has sent all"
        );
        upload.abort();
    }
    fixture
        .probe
        .until("more", |record| record.dropped == 7)
        .await;
    fixture.probe.open("read now");
    assert_uploaded(first).await;
}

/// Four channels to the same server make similar calls at the same time. Each channel gets its own
/// responses and no others.
pub async fn channels_never_see_each_other_s_messages(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    let mut clients = vec![fixture.client.clone()];
    for _ in 1..4 {
        clients.push(fixture.another_client().await);
    }
    let mut calls = JoinSet::new();
    for (number, client) in (0..).zip(&clients) {
        for (round, kind) in (0..100).zip(Kind::ALL.into_iter().cycle()) {
            let client = client.clone();
            calls.spawn(async move {
                let seed = number * 1_000_000 + round * 1000;
                let sent = requests(seed, kind.requests(5), 5000);
                let more = kind.responses(5) - 1;
                let script = Script::named(format!("channel {number}"))
                    .receive_all()
                    .wait("all here")
                    .summarize()
                    .send(more, 5000, seed);
                let outcome = run(&client, kind, &script, sent.clone()).await;
                let (first, rest) = outcome.expect_success().split_first().expect("a response");
                assert_eq!(first.received, Some(received(&sent)), "of channel {number}");
                assert_sent(rest, more, 5000, seed);
            });
        }
    }
    for number in 0..4 {
        let name = format!("channel {number}");
        fixture
            .probe
            .until(&name, |record| record.inputs_ended == 100)
            .await;
    }
    fixture.probe.open("all here");
    while let Some(call) = calls.join_next().await {
        call.expect("the call is as it should be");
    }
}

/// The end of a channel ends only its own calls.
pub async fn a_channel_that_goes_away_leaves_the_others(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    let leaving = fixture.another_client().await;
    let staying = fixture.another_client().await;
    let echo = |client: Client, name: &'static str| async move {
        let script = Script::named(name).wait("on").echo_all();
        run(&client, Kind::Bidi, &script, requests(1, 5, 1000)).await
    };
    let left = tokio::spawn(echo(leaving, "left"));
    let stayed: FuturesUnordered<_> = [fixture.client.clone(), staying]
        .map(|client| tokio::spawn(echo(client, "stayed")))
        .into_iter()
        .collect();
    fixture.probe.started("left").await;
    fixture
        .probe
        .until("stayed", |record| record.started == 2)
        .await;
    // The task owns the only clone of its channel.
    left.abort();
    fixture.probe.dropped("left").await;
    fixture.probe.open("on");
    let outcomes: Vec<_> = stayed.collect().await;
    assert_eq!(outcomes.len(), 2);
    for outcome in outcomes {
        let outcome = outcome.expect("the call does not panic");
        assert_sent(outcome.expect_success(), 5, 1000, 1);
    }
    assert_usable(&fixture.client).await;
}
