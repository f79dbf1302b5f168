//! The proxy that other tests use to break connections.

mod delay;
mod ends;
mod freeze;
mod link;
mod passing;
mod targets;
