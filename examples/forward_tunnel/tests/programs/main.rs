//! Tests that run the two programs.

// The tests send SIGINT, a signal of Unix.
#![cfg(unix)]

mod client;
mod lies;
mod server;
mod support;
