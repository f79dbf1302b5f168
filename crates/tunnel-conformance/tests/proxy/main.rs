//! The proxy that other tests trust to break their connections.

mod delay;
mod ends;
mod freeze;
mod link;
mod passing;
mod targets;
