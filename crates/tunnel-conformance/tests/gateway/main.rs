//! The gateway's side of tunnels: who may open one, by which key it is found, how calls pick one
//! and move to another, and how tunnels end.
//!
//! The devices are of two kinds: [`support::device`]s of the binding, which can hold back what
//! they should say, drain and refuse when a test wants it; and peers that speak by hand
//! ([`support::by_hand`]).
//!
//! Tests wait for events and never for time; [`support::guarded`] fails one that hangs.

mod admission;
mod ages;
mod channels;
mod drains;
mod events;
mod full;
mod keys;
mod kicks;
mod limits;
mod moves;
mod picks;
mod pools;
mod races;
mod stays;
mod stops;
mod support;
mod waiting;
mod windows;
