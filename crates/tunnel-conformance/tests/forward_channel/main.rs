//! Channels that keep forward tunnels open: how tunnels begin, end and are replaced, and what
//! happens to calls meanwhile.
//!
//! The conformance suite (`forward_kept_up`) tests calls in general. Plain tonic on the same link
//! is the oracle where possible.

mod addresses;
mod ages;
mod gateways;
mod losses;
mod proxies;
mod restarts;
mod shared_connection;
mod support;
mod waits;
