//! The handle that keeps a tunnel open.

use std::sync::Arc;

use crate::shared::{Shared, now};

/// Keeps a tunnel open; the tunnel is drained when its last handle is dropped. The clones of a channel
/// share one with the calls that have not begun. Calls in flight do not need it.
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        shared.add_handle();
        Self { shared }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.shared.remove_handle() {
            self.shared.with(|state| state.conn.drain(now(), None));
        }
    }
}
