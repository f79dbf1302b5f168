//! Channels that keep forward tunnels up: how their tunnels begin, end and are replaced, and what
//! becomes of calls meanwhile.
//!
//! What calls do in such channels is the suite's business (`forward_kept_up`). Plain tonic on the
//! same link is the oracle where it can be one.

mod addresses;
mod ages;
mod losses;
mod proxies;
mod restarts;
mod shared_connection;
mod support;
mod waits;
