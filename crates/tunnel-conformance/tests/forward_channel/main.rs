//! Channels that keep forward tunnels up: how their tunnels begin, end and are replaced, and the
//! calls meanwhile.
//!
//! The suite (`forward_kept_up`) tests calls in general. Plain tonic on the same link is the oracle
//! where possible.

mod addresses;
mod ages;
mod losses;
mod proxies;
mod restarts;
mod shared_connection;
mod support;
mod waits;
