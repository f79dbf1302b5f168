//! gRPC tunnels for tonic: a channel on one end, services on the other.
//!
//! - [`TunnelChannel`] makes calls through a tunnel; any generated client takes it.
//! - [`CallService`] serves calls of tunnels by any generated server.
//! - [`Tunnel`] joins either to an outer call; `tunnel-client` and `tunnel-server` use it to
//!   open and to accept tunnels, and most users want one of those.
//!
//! # How a call travels
//!
//! There is one lock for each tunnel, and one task that reads, or two in turn. A call is a future and two
//! bodies that work on the tunnel's state machine directly: no channel between tasks, no task
//! on the caller's side unless its request goes on after the first look at it. What is to be
//! sent is written when the transport pulls, everything that is ready in one piece: the open,
//! the message and the half-close of a unary call leave together.
//!
//! A handler runs in a task of its own, or for a start in one of the two that read, while the other
//! is free to read on. If it panics its call ends with INTERNAL; when its
//! call is cancelled, by its caller, a deadline or the end of the tunnel, it is dropped. Services
//! that answer at once may be polled while the tunnel is read ([`CallService::poll_inline`]).
//!
//! # What it costs
//!
//! The repository's `docs/PERFORMANCE.md` says what a call costs beside one without a tunnel, which
//! decisions that rests on, and how to measure it again.

mod budget;
mod buffered_read;
mod caller;
mod carrier;
mod driver;
mod error;
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
mod transport;
mod tunnel;
mod waiting;

pub use budget::MemoryBudget;
pub use caller::{CallHead, ResponseBody, ResponseFuture, TunnelChannel};
pub use error::TunnelError;
pub use handler::CallService;
pub use info::{AffinityKey, Direction, TunnelId, TunnelInfo};
pub use outbound::{NetworkRole, Outbound};
#[cfg(feature = "router")]
pub use services::Services;
pub use status::{is_safe_to_retry, tonic_status};
pub use tunnel::{Inbound, Tunnel};
