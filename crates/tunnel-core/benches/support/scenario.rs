//! The measured scenarios.
//!
//! Every figure is for one *unit* of a scenario, at both ends together:
//!
//! - A **call** is a whole unary call: six frames (open, message, half-close; headers, message,
//!   close), written, parsed and handled, with the operations and events of both users.
//! - A **message** is sent in one direction on an open stream and read as it arrives, including the
//!   returned credit. It takes a frame for each 16 KiB.
//! - A **stream** is opened, answered with headers, and closed: four frames.
//! - A **frame** is written, or parsed from a byte stream, without the state machine.
//! - A **byte** is one byte of a parsed byte stream, including prefixes.

use std::fmt;

use bytes::Bytes;
use tunnel_core::{Metadata, Side};

use super::codec;
use super::joined::Joined;
use super::shapes::{self, SHAPES};

/// Does the work of one round.
pub(crate) type Round = Box<dyn FnMut()>;

/// One thing to measure.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    /// The description, which is also the name of the recorded figures.
    pub(crate) name: &'static str,
    /// The unit: call, message, stream, frame or byte.
    pub(crate) unit: &'static str,
    /// The payload of a unit in bytes, if throughput matters.
    pub(crate) payload: usize,
    /// The rounds of the warm-up, and the rounds to count instructions and allocations.
    pub(crate) rounds: usize,
    pub(crate) work: Work,
}

/// What a round of a scenario does.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    /// This many units.
    Units(usize, fn() -> Round),
    /// Parses the frames of a byte stream; a unit is a byte.
    Decode(fn() -> (Side, Vec<u8>)),
}

impl Scenario {
    pub(crate) fn set_up(&self) -> Round {
        match self.work {
            Work::Units(_, set_up) => set_up(),
            Work::Decode(stream) => shapes::decode(stream()),
        }
    }

    /// How many units a round is.
    pub(crate) fn units(&self) -> usize {
        match self.work {
            Work::Units(units, _) => units,
            Work::Decode(stream) => stream().1.len(),
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// All scenarios, in the order of the groups below.
pub(crate) fn all() -> impl Iterator<Item = &'static Scenario> {
    let groups = [
        CALLS,
        MESSAGES,
        STREAMS,
        codec::ENCODE,
        codec::PARSE,
        SHAPES,
    ];
    groups.into_iter().flatten()
}

pub(crate) const fn scenario(
    name: &'static str,
    unit: &'static str,
    [units, rounds]: [usize; 2],
    set_up: fn() -> Round,
) -> Scenario {
    Scenario {
        name,
        unit,
        payload: 0,
        rounds,
        work: Work::Units(units, set_up),
    }
}

/// Unary calls with messages of 16 bytes.
pub(crate) const CALLS: &[Scenario] = &[
    scenario("unary 16 B, 1 at a time", "call", [1, 1024], || unary(1, 0)),
    scenario("unary 16 B, 64 at a time", "call", [64, 16], || {
        unary(64, 0)
    }),
    scenario("unary 16 B, 10 metadata entries", "call", [1, 1024], || {
        unary(1, 10)
    }),
];

/// Messages one after another on one stream. At 1 KiB, 32 messages are queued at a time.
pub(crate) const MESSAGES: &[Scenario] = &[
    Scenario {
        payload: 1 << 10,
        ..scenario("stream of 1 KiB messages", "message", [32, 32], || {
            stream(1 << 10, 32)
        })
    },
    Scenario {
        payload: 64 << 10,
        ..scenario("stream of 64 KiB messages", "message", [1, 64], || {
            stream(64 << 10, 1)
        })
    },
    Scenario {
        payload: 1 << 20,
        ..scenario("stream of 1 MiB messages", "message", [1, 16], || {
            stream(1 << 20, 1)
        })
    },
];

/// Idle streams, a thousand open at once.
pub(crate) const STREAMS: &[Scenario] = &[scenario(
    "open and close an idle stream",
    "stream",
    [1000, 4],
    idle,
)];

/// Metadata with this many entries, as long as tracing headers and tokens.
pub(crate) fn metadata(entries: usize) -> Metadata {
    let entry = |i| {
        (
            format!("x-header-{i}"),
            format!("{i}-0af7651916cd43dd8448eb21"),
        )
    };
    (0..entries).map(entry).collect()
}

fn unary(at_a_time: usize, entries: usize) -> Round {
    let mut joined = Joined::new();
    let headers = metadata(entries);
    let payload = Bytes::from_static(&[7; 16]);
    Box::new(move || joined.unary_calls(at_a_time, &headers, &payload))
}

fn stream(size: usize, at_a_time: usize) -> Round {
    let mut joined = Joined::new();
    let payload = Bytes::from(vec![7; size]);
    let id = joined.open_idle(1)[0];
    Box::new(move || joined.messages(Side::Caller, id, &payload, at_a_time))
}

fn idle() -> Round {
    let mut joined = Joined::new();
    Box::new(move || {
        let ids = joined.open_idle(1000);
        joined.close_idle(&ids);
    })
}
