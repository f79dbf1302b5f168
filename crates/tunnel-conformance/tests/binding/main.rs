//! The binding to tonic: what the conformance suite, which looks at calls, cannot see.
//!
//! That nothing is left when calls and tunnels have ended; peers that break the protocol, spoken
//! by hand; what a tunnelled call knows of its tunnel; how tunnels open, end, and fail to. Where a
//! test guards against one of the traps that tonic sets for a channel that is not HTTP/2, its
//! comment says which.
//!
//! Tests wait for events and never for time; [`support::guarded`] fails one that hangs.

mod buffers;
mod channel;
mod computing;
mod errors;
mod hostile_callers;
mod hostile_handlers;
mod inline;
mod inline_turns;
mod liveness;
mod logs;
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
