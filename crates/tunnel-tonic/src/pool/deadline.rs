//! Waiting until a deadline, on any thread.

use std::pin::pin;
use std::time::Instant;

use futures::future::{Either, select};
use tokio::runtime::Handle;

/// Runs a future until a deadline of tokio's clock. `None` if the deadline has passed.
///
/// The timer is that of the current runtime, or of `runtime` on a thread without one. Without either,
/// there is no deadline.
pub async fn with_deadline<T>(
    deadline: Instant,
    runtime: Option<&Handle>,
    wait: impl Future<Output = T>,
) -> Option<T> {
    let own = Handle::try_current().ok();
    let Some(runtime) = own.as_ref().or(runtime) else {
        return Some(wait.await);
    };
    let time_is_up = {
        let _entered = runtime.enter();
        tokio::time::sleep_until(deadline.into())
    };
    match select(pin!(wait), pin!(time_is_up)).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}
