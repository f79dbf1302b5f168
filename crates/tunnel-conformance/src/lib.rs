//! One suite of gRPC behaviour, run over every path a call can take.
//!
//! A *case* is a named function that drives an ordinary generated client against
//! an ordinary tonic service and checks every code, byte and count. A *path* is
//! anything that puts a channel between the two: tonic's own `Routes` in process
//! (the oracle, which says what right is), plain tonic over TCP, or a tunnel.
//!
//! # Running the suite over a path
//!
//! Implement [`Path`] and write one test file:
//!
//! ```no_run
//! tunnel_conformance::suite! {
//!     mod oracle = tunnel_conformance::OraclePath;
//!     lacks {
//!         deadlines: "n/a: nothing in process enforces a deadline",
//!     }
//! }
//! ```
//!
//! Each case becomes a test of its own, `oracle::unary_succeeds` and so on. What a
//! path cannot do is declared under `lacks`, with the reason: the cases that need
//! it stay in the list, reported as ignored with that reason, and can be run all
//! the same with `-- --ignored` to see the difference. [`suite!`] lists what can be lacking.
//!
//! # Writing a case
//!
//! Start a [`Fixture`], say with a [`Script`](proto::Script) what the far handler
//! does, and await events on the [`Probe`] rather than time: nothing in here sleeps,
//! and no case asserts a duration. Every test has a hang guard instead, which fails it by name.
//!
//! What a network does to connections is [`FaultProxy`]'s to play: it delays, freezes, cuts and resets.
//!
//! A case must be able to fail: `tests/faults.rs` runs cases over paths that do one
//! thing wrong, and expects them to notice.

pub mod cases;
pub mod client;
pub mod feed;
pub mod fixture;
pub mod golden;
pub mod harness;
mod mark;
pub mod metadata;
pub mod path;
pub mod payload;
pub mod probe;
pub mod proxy;
pub mod script;
pub mod service;
pub mod tap;

mod handler;
mod table;
mod trailers;

/// The generated messages, client and server of the service under test.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used
)]
pub mod proto {
    include!("generated/tunnel.conformance.v1.rs");
}

pub use client::{Kind, Ongoing, Outcome};
pub use fixture::Fixture;
pub use path::{
    ForwardPath, Host, NestedPath, Offer, OraclePath, Path, PlainTcpPath, ReversePath, TcpServer,
    TestChannel,
};
pub use probe::Probe;
pub use proxy::FaultProxy;

/// The generated client over an erased channel.
pub type Client = proto::test_service_client::TestServiceClient<TestChannel>;

/// The code in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
mod readme {}
