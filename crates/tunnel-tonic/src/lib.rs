//! gRPC tunnels for tonic: a channel on one end, services on the other.
//!
//! - [`TunnelChannel`] makes calls through a tunnel; any generated client takes it.
//! - [`CallService`] serves calls of tunnels by any generated server.
//! - [`Tunnel`] connects either to an outer call. `tunnel-client` and `tunnel-server` open and accept
//!   tunnels with it; most users want one of these crates.
//!
//! # How a call travels
//!
//! A tunnel has one lock. A call is a future and two bodies that use the state machine under that
//! lock directly, without channels between tasks. The transport pulls frames and gets all ready
//! frames at once: the open, the message and the half-close of a unary call are sent together.
//!
//! A handler runs in its own task, or in one of the two tasks that read its tunnel while the other one
//! reads on. If the handler panics, its call ends with INTERNAL. When the call is cancelled, by its
//! caller, a deadline or the end of the tunnel, the handler is dropped. Services that answer at once
//! can be polled by the task that reads ([`CallSettings::poll_inline`]).
//!
//! The repository's `docs/PERFORMANCE.md` compares the cost of a call with one without a tunnel, and says
//! how to measure it again.
//!
//! # Versions
//!
//! Needs Rust 1.88 or later and tonic 0.14. Types of tonic are part of the API, so a new `0.x` of tonic is
//! a new `0.x` of these crates: upgrade both together.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod budget;
mod caller;
mod carrier;
mod compression;
mod driver;
mod error;
mod events;
mod forward_to;
mod handler;
mod headers;
mod info;
mod lifecycle;
mod message;
mod outbound;
pub mod outer;
pub mod pool;
#[cfg(feature = "router")]
mod services;
mod shared;
mod slots;
mod state;
mod status;
pub mod telemetry;
mod transport;
mod tunnel;
mod waiting;

pub use budget::MemoryBudget;
pub use caller::{CallHead, ResponseBody, ResponseFuture, TunnelChannel};
pub use error::TunnelError;
pub use events::{TunnelEvent, TunnelEvents, TunnelReporter};
pub use forward_to::ForwardTo;
pub use handler::{CallService, CallSettings};
pub use info::{AffinityKey, Direction, NetworkRole, TunnelId, TunnelInfo};
pub use outbound::Outbound;
#[cfg(feature = "router")]
pub use services::Services;
pub use status::{NotProcessed, is_safe_to_retry, tonic_status};
pub use tunnel::{Inbound, Tunnel};
/// The crate of the state machine: [`Config`](tunnel_core::Config), [`EndReason`](tunnel_core::EndReason) and
/// other types of this API are from there.
pub use tunnel_core;
