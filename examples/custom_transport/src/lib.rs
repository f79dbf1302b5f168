//! `tunnel-core` alone over any byte stream, without tonic.
//!
//! The protocol of a tunnel needs two directions of bytes that arrive in order: a Unix socket, a TCP
//! connection, a WebSocket, the stream of a QUIC connection. `tunnel-core` is the protocol and does
//! no I/O; this crate is the I/O for it, small enough to be read in one go and meant to be copied:
//!
//! | module | what it does |
//! |---|---|
//! | [`tunnel`], [`mod@call`] | what a user holds: a [`Tunnel`] and the two halves of its calls |
//! | `shared` | the state machine behind a lock, and the tasks that wait for it |
//! | `transport` | the task of each end: moves bytes between a socket and the state machine |
//! | [`demo`], `echo` | a caller and a handler for the programs of the examples |
//!
//! Calls are gRPC's in all but the encoding of their messages, which are bytes here. What a full
//! binding adds (response headers and trailers, typed messages, generated stubs) is in
//! `tunnel-tonic`.

pub mod call;
pub mod demo;
mod echo;
mod shared;
mod transport;
pub mod tunnel;

pub use call::{Call, CallError, IncomingCall, Receiver, Sender};
pub use tunnel::Tunnel;
