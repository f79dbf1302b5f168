//! The two programs as one runs them.

// Ctrl-C is a signal of Unix.
#![cfg(unix)]

mod client;
mod lies;
mod server;
mod support;
