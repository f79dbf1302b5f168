//! Deadlines: they reach the handler and, if the path enforces them, end the call with
//! DEADLINE_EXCEEDED at any stage.
//!
//! On a slow machine a deadline can expire at an earlier stage of the call than the case tests.
//! Such cases try again with a longer deadline.

use std::time::Duration;

use tonic::{Code, Status};

use crate::client::{call, open, run};
use crate::feed::Feed;
use crate::metadata::values;
use crate::payload::{assert_pattern, assert_sent, request, requests};
use crate::proto::Script;
use crate::testing::assert_usable;
use crate::{Fixture, Kind, Ongoing, Path};

/// One attempt of a case: the name of its call and its deadline.
struct Attempt {
    name: String,
    deadline: Duration,
}

impl Attempt {
    fn growing() -> impl Iterator<Item = Self> {
        [150, 600, 2400, 9600].into_iter().map(|millis| Self {
            name: format!("with {millis} ms"),
            deadline: Duration::from_millis(millis),
        })
    }

    fn request<T>(&self, script: &Script, messages: T) -> tonic::Request<T> {
        let script = Script {
            call: self.name.clone(),
            ..script.clone()
        };
        let mut request = script.request(messages);
        request.set_timeout(self.deadline);
        request
    }
}

#[track_caller]
fn assert_exceeded(status: &Status) {
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
}

/// A deadline that expires before the call begins.
pub async fn already_over(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let messages = futures::stream::iter(requests(1, 1, 10));
    let mut request = Script::named("late").pend().request(messages);
    request.set_timeout(Duration::ZERO);
    let outcome = call(&fixture.client, kind, request).await;
    assert_exceeded(outcome.expect_failure(Code::DeadlineExceeded));
    assert_usable(&fixture.client).await;
}

/// A deadline that expires before the handler has sent anything.
pub async fn before_headers(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let script = Script::default().pend();
    for attempt in Attempt::growing() {
        let messages = futures::stream::iter(requests(1, 1, 10));
        let outcome = call(&fixture.client, kind, attempt.request(&script, messages)).await;
        assert_exceeded(outcome.expect_failure(Code::DeadlineExceeded));
        if fixture.probe.record(&attempt.name).started > 0 {
            fixture.probe.dropped(&attempt.name).await;
            assert_usable(&fixture.client).await;
            return;
        }
    }
    panic!("no deadline was long enough for the handler to start");
}

/// Tries until the headers of a call arrive before its deadline.
async fn open_in_time(fixture: &Fixture, kind: Kind, script: &Script) -> (Attempt, Ongoing) {
    for attempt in Attempt::growing() {
        let messages = futures::stream::iter(requests(1, 1, 10));
        let request = attempt.request(script, messages);
        match open(&fixture.client, kind, request).await {
            Ok(ongoing) => return (attempt, ongoing),
            Err(status) => assert_exceeded(&status),
        }
    }
    panic!("no deadline was long enough for the headers to come");
}

/// A deadline that expires between the headers and the first message.
pub async fn after_headers(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let script = Script::default().send_headers().pend();
    let (attempt, ongoing) = open_in_time(&fixture, kind, &script).await;
    let outcome = ongoing.outcome().await;
    assert_exceeded(outcome.expect_failure(Code::DeadlineExceeded));
    assert_eq!(outcome.messages, []);
    fixture.probe.dropped(&attempt.name).await;
    assert_usable(&fixture.client).await;
}

/// A deadline that expires after some messages. The messages arrive, and then the call ends.
pub async fn between_messages(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let script = Script::default().send(3, 1000, 1).pend();
    for attempt in Attempt::growing() {
        let messages = futures::stream::iter(requests(1, 1, 10));
        let outcome = call(&fixture.client, kind, attempt.request(&script, messages)).await;
        assert_exceeded(outcome.expect_failure(Code::DeadlineExceeded));
        if outcome.messages.len() == 3 {
            assert_sent(&outcome.messages, 3, 1000, 1);
            fixture.probe.dropped(&attempt.name).await;
            assert_usable(&fixture.client).await;
            return;
        }
    }
    panic!("no deadline was long enough for three messages");
}

/// A deadline that expires while the request stream is open.
pub async fn during_an_upload(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let script = Script::default().receive_all().summarize();
    for attempt in Attempt::growing() {
        let (feed, mut watch) = Feed::open(requests(1, 3, 1000));
        let outcome = call(&fixture.client, kind, attempt.request(&script, feed)).await;
        assert_exceeded(outcome.expect_failure(Code::DeadlineExceeded));
        watch.dropped().await;
        let record = fixture.probe.record(&attempt.name);
        assert_eq!(
            record.inputs_ended, 0,
            "a cut upload is no clean end: {record:?}"
        );
        if record.received == 3 {
            fixture.probe.over(&attempt.name).await;
            assert_usable(&fixture.client).await;
            return;
        }
    }
    panic!("no deadline was long enough for three requests");
}

/// A deadline that expires while the caller does not read a flood of responses.
pub async fn while_responses_wait_to_be_read(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let script = Script::default().send(u64::MAX, 65_536, 1);
    let (attempt, mut ongoing) = open_in_time(&fixture, kind, &script).await;
    fixture.probe.dropped(&attempt.name).await;
    // Responses that had arrived by then may still be read before the error.
    for seed in 1.. {
        match ongoing.next().await {
            Ok(Some(message)) => assert_pattern(&message.payload, seed, 65_536),
            Ok(None) => panic!("a cut stream is no clean end"),
            Err(status) => {
                assert_exceeded(&status);
                break;
            }
        }
    }
    assert_usable(&fixture.client).await;
}

/// A deadline ends only its own call.
pub async fn of_one_call_leaves_the_others(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    let client = fixture.client.clone();
    let other = tokio::spawn(async move {
        let script = Script::named("other").wait("on").echo_all();
        run(&client, Kind::Bidi, &script, requests(1, 5, 1000)).await
    });
    fixture.probe.started("other").await;
    for kind in Kind::ALL {
        let messages = futures::stream::iter(requests(1, 1, 10));
        let mut request = Script::named("late").pend().request(messages);
        request.set_timeout(Duration::from_millis(1));
        let outcome = call(&fixture.client, kind, request).await;
        assert_exceeded(outcome.expect_failure(Code::DeadlineExceeded));
    }
    fixture.probe.open("on");
    let outcome = other.await.expect("the call does not panic");
    assert_sent(outcome.expect_success(), 5, 1000, 1);
}

/// A deadline in the far future has no effect.
pub async fn far_away_changes_nothing(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    for deadline in [
        Duration::from_secs(3600),
        Duration::from_secs(99_999_999 * 3600),
    ] {
        let messages = futures::stream::iter(requests(1, 1, 10));
        let script = Script::named("early").echo_all();
        let mut request = script.request(messages);
        request.set_timeout(deadline);
        let outcome = call(&fixture.client, kind, request).await;
        assert_sent(outcome.expect_success(), 1, 10, 1);
    }
}

/// The handler sees the remaining time, which is never more than the caller's timeout.
pub async fn reaches_the_handler(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let messages = futures::stream::iter(vec![request(1, 10)]);
    let mut request = Script::named("timed")
        .receive_all()
        .report()
        .request(messages);
    request.set_timeout(Duration::from_secs(1000));
    let outcome = call(&fixture.client, kind, request).await;
    let seen = values(&outcome.expect_success()[0].metadata, "grpc-timeout");
    let [timeout] = &seen[..] else {
        panic!("one grpc-timeout should arrive, not {seen:?}");
    };
    let timeout = std::str::from_utf8(timeout).expect("text");
    let (number, unit) = timeout.split_at(timeout.len() - 1);
    let number: u64 = number.parse().expect("a number");
    let timeout = match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => panic!("{timeout} has no unit"),
    };
    assert!(
        timeout <= Duration::from_secs(1000),
        "{timeout:?} is more than was given"
    );
    assert!(timeout > Duration::ZERO, "there is time left");
}
