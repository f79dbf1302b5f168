//! The cases, each an async function of a path. [`suite!`](crate::suite) lists them by name.

pub mod cancellation;
pub mod concurrency;
pub mod deadlines;
pub mod early_end;
pub mod failures;
pub mod interceptors;
pub mod isolation;
pub mod kinds;
pub mod loss;
pub mod messages;
pub mod metadata;
pub mod sizes;

use futures::stream;
use tonic::Code;

use crate::client::run;
use crate::payload::{assert_pattern, request};
use crate::proto::Script;
use crate::{Client, Kind};

/// Panics unless a call on the client's channel succeeds.
pub(crate) async fn assert_usable(client: &Client) {
    let script = Script::named("is the channel usable?").echo_all();
    let outcome = run(client, Kind::Unary, &script, vec![request(99, 1000)]).await;
    assert_pattern(&outcome.expect_success()[0].payload, 99, 1000);
}

/// The codes a call can fail with.
pub(crate) fn failure_codes() -> impl Iterator<Item = Code> {
    (1..=16).map(Code::from)
}

/// A request stream without a message.
pub(crate) fn no_requests() -> stream::Empty<crate::proto::Request> {
    stream::empty()
}
