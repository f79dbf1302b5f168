//! Tests of the tonic binding beyond single calls, which the conformance suite covers.
//!
//! They cover cleanup after calls and tunnels, peers that break the protocol, what a call sees of
//! its tunnel, and how tunnels open and end. A comment names the trap of tonic that a test guards
//! against.
//!
//! Tests wait for events, not for time. [`support::guarded`] fails a test that hangs.

mod buffers;
mod channel;
mod compression;
mod compression_outer;
mod computing;
mod errors;
mod hostile_callers;
mod hostile_handlers;
mod in_memory;
mod inline;
mod inline_turns;
mod layers;
mod liveness;
mod nothing_left;
mod opening;
mod panics;
mod parked;
mod queue;
mod seen;
mod serving;
mod support;
mod threads;
mod tls;
mod together;
mod traps;
mod traps_outer;
mod turns;
mod wakeups;
