//! The end of a tunnel that has reached its maximum age: a replacement first, then a drain.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use std::pin::pin;
use tokio::time::{sleep, timeout};
use tunnel_tonic::Direction;

use crate::TunnelHandle;
use crate::policy::MaxAge;
use crate::registry::Registry;

/// How long a reverse tunnel waits for its replacement.
const REPLACEMENT: Duration = Duration::from_secs(10);

/// Ends a tunnel when it has reached its age.
pub(crate) async fn watch(max: MaxAge, registry: Arc<Registry>, tunnel: TunnelHandle) {
    let gone = pin!(tunnel.gone());
    match select(pin!(sleep(max.jittered())), gone).await {
        Either::Left(_) => {}
        Either::Right(_) => return,
    }
    tracing::debug!(tunnel = %tunnel.id(), "tunnel reached its maximum age");
    if tunnel.direction() == Direction::Reverse && tunnel.tunnel().retire() {
        // Without a replacement it ends all the same.
        let _ = timeout(REPLACEMENT, registry.replaced(&tunnel)).await;
    }
    tunnel.drain(max.grace).await;
}
