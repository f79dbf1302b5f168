//! What keeps a tunnel open.

use std::sync::Arc;

use crate::shared::{Shared, now};

/// Keeps a tunnel open, and drains it when it is dropped. The clones of a channel share it with the
/// calls that have not begun. Calls in flight do not need it.
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.with(|state| state.conn.drain(now(), None));
    }
}
