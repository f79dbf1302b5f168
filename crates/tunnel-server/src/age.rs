//! The end of a tunnel that has reached its maximum age: a replacement first, then a drain.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use std::pin::pin;
use tokio::time::{sleep, timeout};
use tunnel_tonic::Direction;

use crate::AcceptedTunnel;
use crate::registry::Registry;

/// How long a reverse tunnel waits for its replacement.
const REPLACEMENT: Duration = Duration::from_secs(10);

/// The longest age, which timers can still express.
const LONGEST: Duration = Duration::from_secs(60 * 60 * 24 * 365);

/// The age, more or less by up to a tenth, so that tunnels opened together do not end together.
fn jittered(age: Duration) -> Duration {
    age.min(LONGEST).mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// Ends a tunnel when it has reached its age.
pub(crate) async fn watch(
    max_age: Duration,
    drain_timeout: Duration,
    registry: Arc<Registry>,
    tunnel: AcceptedTunnel,
) {
    let closed = pin!(tunnel.closed());
    match select(pin!(sleep(jittered(max_age))), closed).await {
        Either::Left(_) => {}
        Either::Right(_) => return,
    }
    tracing::debug!(parent: tunnel.tunnel().span(), "tunnel reached its maximum age");
    if tunnel.direction() == Direction::Reverse && tunnel.tunnel().retire() {
        // Without a replacement the tunnel is drained too.
        let _ = timeout(REPLACEMENT, registry.replaced(&tunnel)).await;
    }
    tunnel.drain(drain_timeout).await;
}
