//! The ordinary life of a tunnel: two ends of ours, in virtual time.

#[path = "../support/mod.rs"]
mod support;

mod chunks;
mod drain;
mod ends;
mod flow;
mod growth;
mod kinds;
mod negotiation;
mod schedule;
mod time;
mod zero;
