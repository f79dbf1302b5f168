//! Two ends of this library that behave, in virtual time.

#[path = "../support/mod.rs"]
mod support;

mod chunks;
mod compressed;
mod credit;
mod drain;
mod ends;
mod flow;
mod growth;
mod heartbeats;
mod kinds;
mod negotiation;
mod notices;
mod schedule;
mod time;
mod zero;
