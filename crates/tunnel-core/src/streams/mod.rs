//! Streams: one for each call on a tunnel.

pub(crate) mod admission;
pub(crate) mod assembly;
pub(crate) mod body;
pub(crate) mod cancels;
pub(crate) mod context;
pub(crate) mod counts;
pub(crate) mod flow;
pub(crate) mod hash;
pub(crate) mod queue;
pub(crate) mod recv;
pub(crate) mod released;
pub(crate) mod schedule;
pub(crate) mod send;
mod sizes;
pub(crate) mod stalls;
pub(crate) mod state;
pub(crate) mod store;
pub(crate) mod stream;

use std::fmt;

/// The id of a stream. Ids increase and are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub(crate) i64);

impl StreamId {
    /// The id -1, of the tunnel itself. Settings, drain notices and heartbeats are sent on it.
    pub const CONTROL: Self = Self(-1);

    /// The id of a number on the wire.
    pub const fn new(value: i64) -> Self {
        Self(value)
    }

    /// The number on the wire.
    pub const fn value(self) -> i64 {
        self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A revision of the protocol. Each stream has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Revision {
    /// No flow control inside the tunnel.
    Zero,
    /// Flow control for each stream and direction.
    One,
}

impl Revision {
    /// The number on the wire.
    pub fn to_wire(self) -> i32 {
        match self {
            Self::Zero => 0,
            Self::One => 1,
        }
    }

    /// The revision with this number on the wire, or `None` for an unknown number.
    pub fn from_wire(number: i32) -> Option<Self> {
        match number {
            0 => Some(Self::Zero),
            1 => Some(Self::One),
            _ => None,
        }
    }
}
