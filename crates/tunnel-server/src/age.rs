//! A maximum age of tunnels: a replacement first, then the end.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use std::pin::pin;
use tokio::time::{sleep, timeout};
use tunnel_tonic::Direction;

use crate::TunnelHandle;
use crate::registry::Registry;

/// How long a reverse tunnel that is to go waits for another one in its place.
const REPLACEMENT: Duration = Duration::from_secs(10);

/// The longest age there is: what timers can express.
const LONGEST: Duration = Duration::from_secs(60 * 60 * 24 * 365);

/// How old tunnels may get.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MaxAge {
    pub(crate) age: Duration,
    /// What calls in flight may take after that.
    pub(crate) grace: Duration,
}

impl MaxAge {
    /// The age, more or less by up to a tenth, so that tunnels opened together do not end
    /// together.
    fn jittered(self) -> Duration {
        self.age.min(LONGEST).mul_f64(0.9 + 0.2 * fastrand::f64())
    }

    /// Ends a tunnel when it has reached its age.
    pub(crate) async fn watch(self, registry: Arc<Registry>, tunnel: TunnelHandle) {
        let gone = pin!(tunnel.gone());
        match select(pin!(sleep(self.jittered())), gone).await {
            Either::Left(_) => {}
            Either::Right(_) => return,
        }
        tracing::debug!(tunnel = ?tunnel.info(), "the tunnel has reached its maximum age");
        if tunnel.direction() == Direction::Reverse && tunnel.tunnel().retire() {
            // In vain, it ends all the same.
            let _ = timeout(REPLACEMENT, registry.replaced(&tunnel)).await;
        }
        tunnel.drain(self.grace).await;
    }
}
