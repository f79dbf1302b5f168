//! Messages with sizes at the edges of chunks, windows and limits.

use tonic::Code;
use tonic::service::Routes;

use crate::client::{open, run, unlimited};
use crate::payload::{
    MAX_MESSAGE, assert_encoded, assert_pattern, assert_sent, payload_size_for, received, request,
    requests,
};
use crate::proto::Script;
use crate::service::scripted_with_limit;
use crate::testing::assert_usable;
use crate::{Client, Fixture, Kind, Offer, Path};

/// Messages with a payload of this size, and messages with this encoded size, in both directions
/// and all kinds of call.
pub async fn messages_of(path: &dyn Path, size: usize) {
    let fixture = Fixture::start(path).await;
    assert_carries(&fixture.client, size).await;
    // No message has an encoded size of one byte.
    if let Some(payload) = payload_size_for(size) {
        assert_encoded(&request(1, payload), size);
        assert_carries(&fixture.client, payload).await;
    }
}

/// The longest messages that tonic accepts by default.
pub async fn messages_of_the_maximum(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    let payload = payload_size_for(MAX_MESSAGE).expect("there is such a message");
    assert_encoded(&request(1, payload), MAX_MESSAGE);
    assert_carries(&fixture.client, payload).await;
}

async fn assert_carries(client: &Client, size: usize) {
    for kind in Kind::ALL {
        let sent = requests(1, kind.requests(3), size);
        let script = Script::named("up").receive_all().summarize();
        let outcome = run(client, kind, &script, sent.clone()).await;
        assert_eq!(outcome.expect_success()[0].received, Some(received(&sent)));

        let count = kind.responses(3);
        let script = Script::named("down").receive_all().send(count, size, 9);
        let outcome = run(client, kind, &script, requests(1, 1, 1)).await;
        assert_sent(outcome.expect_success(), count, size, 9);

        let count = sent.len().min(outcome.messages.len()) as u64;
        let script = Script::named("echo").echo(count).receive_all();
        let outcome = run(client, kind, &script, sent).await;
        assert_sent(outcome.expect_success(), count, size, 1);
    }
}

/// A request one byte over the limit, after a normal request if the kind allows two.
pub async fn a_request_over_the_maximum_is_out_of_range(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let payload = payload_size_for(MAX_MESSAGE + 1).expect("there is such a message");
    let mut sent = requests(1, kind.requests(2), 10);
    *sent.last_mut().expect("there is a request") = request(2, payload);
    let script = Script::named("too long").receive_all().summarize();
    let outcome = run(&fixture.client, kind, &script, sent).await;
    outcome.expect_failure(Code::OutOfRange);
    assert_eq!(outcome.messages, []);
    assert_usable(&fixture.client).await;
}

/// A response one byte over the limit, after a normal response if the kind allows two.
pub async fn a_response_over_the_maximum_is_out_of_range(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let payload = payload_size_for(MAX_MESSAGE + 1).expect("there is such a message");
    let before = kind.responses(2) - 1;
    let script = Script::named("too long")
        .receive_all()
        .send(before, 10, 1)
        .send(1, payload, 2);
    let outcome = run(&fixture.client, kind, &script, requests(1, 1, 10)).await;
    outcome.expect_failure(Code::OutOfRange);
    assert_sent(&outcome.messages, before, 10, 1);
    assert_usable(&fixture.client).await;
}

/// A response over the limit ends the call, so its handler, which had more to send, is dropped.
pub async fn a_response_over_the_maximum_cancels_the_handler(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    let script = Script::named("too long").send(1, MAX_MESSAGE + 1, 2).pend();
    let request = script.request(futures::stream::iter(requests(1, 1, 10)));
    let ongoing = open(&fixture.client, Kind::ServerStream, request).await;
    let outcome = ongoing.expect("headers come").outcome().await;
    outcome.expect_failure(Code::OutOfRange);
    fixture.probe.dropped("too long").await;
    assert_usable(&fixture.client).await;
}

/// With every limit raised, a message of 64 MiB passes in both directions.
pub async fn a_message_of_64_mib_passes_where_the_limits_allow(path: &dyn Path) {
    const LIMIT: usize = 64 * 1024 * 1024;
    let fixture = Fixture::start_with(path, |probe| {
        Offer::new(Routes::new(scripted_with_limit(probe, LIMIT))).with_max_message_size(LIMIT)
    })
    .await;
    let client = unlimited(fixture.channel.clone());
    let payload = payload_size_for(LIMIT).expect("there is such a message");
    let sent = request(5, payload);
    assert_encoded(&sent, LIMIT);
    let script = Script::named("huge").echo(1);
    let outcome = run(&client, Kind::Unary, &script, vec![sent]).await;
    assert_pattern(&outcome.expect_success()[0].payload, 5, payload);
}

/// Messages of very different sizes in one stream, in alternation.
pub async fn messages_of_mixed_sizes_keep_their_order(path: &dyn Path) {
    const SIZES: [usize; 16] = [
        0, 1, 16_383, 0, 0, 16_384, 5, 1_048_576, 16_385, 65_535, 2, 65_536, 65_537, 0, 131_072, 1,
    ];
    let fixture = Fixture::start(path).await;
    let sent = SIZES
        .iter()
        .zip(1..)
        .map(|(&size, seed)| request(seed, size))
        .collect();
    let script = Script::named("mixed").echo_all();
    let outcome = run(&fixture.client, Kind::Bidi, &script, sent).await;
    let messages = outcome.expect_success();
    assert_eq!(messages.len(), SIZES.len());
    for ((message, &size), seed) in messages.iter().zip(&SIZES).zip(1..) {
        assert_pattern(&message.payload, seed, size);
    }
}

/// A stream with much more data than any window.
pub async fn a_stream_of_32_mib_arrives_whole(path: &dyn Path, kind: Kind) {
    const COUNT: u64 = 512;
    const SIZE: usize = 65_536;
    let fixture = Fixture::start(path).await;
    match kind {
        Kind::Unary => unreachable!("a unary call has no stream"),
        Kind::ServerStream => {
            let script = Script::named("much").send(COUNT, SIZE, 1);
            let outcome = run(&fixture.client, kind, &script, requests(1, 1, 1)).await;
            assert_sent(outcome.expect_success(), COUNT, SIZE, 1);
        }
        Kind::ClientStream => {
            let sent = requests(1, COUNT, SIZE);
            let script = Script::named("much").receive_all().summarize();
            let outcome = run(&fixture.client, kind, &script, sent.clone()).await;
            assert_eq!(outcome.expect_success()[0].received, Some(received(&sent)));
        }
        Kind::Bidi => {
            let script = Script::named("much").echo_all();
            let sent = requests(1, COUNT, SIZE);
            let outcome = run(&fixture.client, kind, &script, sent).await;
            assert_sent(outcome.expect_success(), COUNT, SIZE, 1);
        }
    }
}
