//! How far a tunnel has come. It never goes back.

use tunnel_core::EndReason;

/// How far a tunnel has come, for those who wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// The outer call is being opened, or settings are awaited.
    Opening,
    /// Calls can be made.
    Ready,
    /// One of the ends drains: no new calls, those in flight go on.
    Draining,
    /// No call is possible any more; the outer stream may not have ended yet.
    Ended(EndReason),
    /// The outer stream has ended as well.
    Gone(EndReason),
}

impl Life {
    pub(crate) fn end_reason(&self) -> Option<&EndReason> {
        match self {
            Self::Ended(reason) | Self::Gone(reason) => Some(reason),
            Self::Opening | Self::Ready | Self::Draining => None,
        }
    }

    pub(crate) fn is_over_for_new_calls(&self) -> bool {
        !matches!(self, Self::Opening | Self::Ready)
    }

    /// How far this is; a tunnel never goes back.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Self::Opening => 0,
            Self::Ready => 1,
            Self::Draining => 2,
            Self::Ended(_) => 3,
            Self::Gone(_) => 4,
        }
    }
}
