//! The phases of a tunnel.

use crate::EndReason;

/// The phases of a tunnel, in the order in which it passes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Created; the outer call is being opened.
    Opening,
    /// Caller: waiting for the handler's settings.
    AwaitingSettings,
    /// Calls can be made.
    Ready,
    /// Over.
    Ended(EndReason),
}
