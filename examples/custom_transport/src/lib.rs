//! `tunnel-core` alone over any byte stream, without tonic.
//!
//! A tunnel needs bytes in both directions that arrive in order: a Unix socket, a
//! TCP connection, a serial line, a QUIC stream. `tunnel-core` is the protocol
//! without I/O. This crate adds the I/O. It is short and meant to be copied:
//!
//! | module | what it does |
//! |---|---|
//! | [`tunnel`], [`mod@call`] | the user's handles: a [`Tunnel`] and the two halves of its calls |
//! | `transport` | the task of each end, which moves bytes between a socket and the state machine |
//! | `calls` | pending operations, which events complete |
//!
//! Calls are gRPC calls whose messages are plain bytes. `tunnel-tonic` is a full
//! binding: it adds response headers, trailers, typed messages and generated stubs.

pub mod call;
mod calls;
mod transport;
pub mod tunnel;

pub use call::{Call, CallError, IncomingCall, Receiver, Sender};
pub use tunnel::Tunnel;
