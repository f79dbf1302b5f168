//! Tunnels at the gateway: admission, keys, how calls pick a tunnel and move to another, and how
//! tunnels end.
//!
//! There are two kinds of devices: [`support::device`]s of the binding, which delay frames, drain
//! and refuse when a test wants it, and peers whose frames the test sends itself
//! ([`support::by_hand`]).
//!
//! Tests wait for events, not for time. [`support::guarded`] fails a test that hangs.

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
mod proxies;
mod races;
mod stays;
mod stops;
mod support;
mod waiting;
mod windows;
