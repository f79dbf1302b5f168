//! A wait with a limit of time, on any thread.

use std::pin::pin;
use std::time::Instant;

use futures::future::{Either, select};
use tokio::runtime::Handle;

/// Waits for something, at most until an instant of tokio's clock. `None` if it took too long.
///
/// The timer is of the runtime at hand, or of `runtime` on a thread that has none. Where there is
/// neither, time is not limited.
pub async fn within<T>(
    at: Instant,
    runtime: Option<&Handle>,
    wait: impl Future<Output = T>,
) -> Option<T> {
    let own = Handle::try_current().ok();
    let Some(runtime) = own.as_ref().or(runtime) else {
        return Some(wait.await);
    };
    let time_is_up = {
        let _entered = runtime.enter();
        tokio::time::sleep_until(at.into())
    };
    match select(pin!(wait), pin!(time_is_up)).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}
