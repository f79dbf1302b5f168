//! The cases, each an async function of a path. [`suite!`](crate::suite) lists them by name.

pub mod cancellation;
pub mod compression;
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

/// The codes a call can fail with.
pub(crate) fn failure_codes() -> impl Iterator<Item = Code> {
    (1..=16).map(Code::from)
}

/// A request stream without a message.
pub(crate) fn no_requests() -> stream::Empty<crate::proto::Request> {
    stream::empty()
}
