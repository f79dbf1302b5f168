//! A test suite of gRPC behaviour that runs over every transport of calls.
//!
//! A *case* is a function that drives a generated client against a tonic service and checks every
//! status code, byte and count. A *path* puts a channel between the two: tonic's `Routes` in
//! process (the oracle, which defines the correct behaviour), plain tonic over TCP, or a tunnel.
//!
//! # Running the suite over a path
//!
//! Implement [`Path`] and add a module to `tests/suite`:
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
//! Each case becomes a test, such as `oracle::unary_succeeds`. Features that a path does not have
//! are declared under `lacks`, with the reason. The cases that need such a feature are ignored,
//! with that reason in the test output; `-- --ignored` runs them. [`suite!`] lists the features.
//!
//! # Writing a case
//!
//! Start a [`Fixture`], describe the handler's actions with a [`Script`](proto::Script), and await
//! events on the [`Probe`]. Cases do not sleep and do not assert durations; a guard fails a test
//! that hangs. [`FaultProxy`] simulates network faults: it delays, freezes, cuts and resets
//! connections.
//!
//! A case must be able to fail: `tests/faults.rs` runs cases over paths with one deliberate error
//! each, and expects the cases to detect it.

mod authority;
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
pub mod testing;

mod handler;
mod list;
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

pub use authority::Authority;
pub use client::{Kind, Ongoing, Outcome};
pub use fixture::Fixture;
pub use list::{CASES, Case};
pub use path::{
    ForwardPath, Host, NestedPath, Offer, OraclePath, Path, PlainTcpPath, ProxiedPath, ReversePath,
    TcpServer, TestChannel,
};
pub use probe::Probe;
pub use proxy::FaultProxy;

/// The generated client over an erased channel.
pub type Client = proto::test_service_client::TestServiceClient<TestChannel>;
