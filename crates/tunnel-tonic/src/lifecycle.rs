//! The lifecycle of a tunnel.

use tunnel_core::EndReason;

/// The states of a tunnel, in the order in which it passes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lifecycle {
    /// The outer call is being opened, or settings have not arrived.
    Opening,
    /// Calls can be made.
    Ready,
    /// Handler: the caller has announced that it routes calls to this tunnel.
    Routed,
    /// One of the ends drains: new calls are refused, and calls in flight continue.
    Draining,
    /// No call is possible any more; the outer stream may not have ended yet.
    Ended(EndReason),
    /// The outer stream has ended as well.
    Closed(EndReason),
}

impl Lifecycle {
    pub(crate) fn end_reason(&self) -> Option<&EndReason> {
        match self {
            Self::Ended(reason) | Self::Closed(reason) => Some(reason),
            Self::Opening | Self::Ready | Self::Routed | Self::Draining => None,
        }
    }

    pub(crate) fn is_over_for_new_calls(&self) -> bool {
        !matches!(self, Self::Opening | Self::Ready | Self::Routed)
    }

    /// The position of this state in the order.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Self::Opening => 0,
            Self::Ready => 1,
            Self::Routed => 2,
            Self::Draining => 3,
            Self::Ended(_) => 4,
            Self::Closed(_) => 5,
        }
    }
}
