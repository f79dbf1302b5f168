//! gRPC tunnels for tonic: a channel on one end, services on the other.
//!
//! - [`TunnelChannel`] makes calls through a tunnel; any generated client takes it.
//! - [`CallService`] serves calls of tunnels by any generated server.
//! - [`Tunnel`] joins either to an outer call; `tunnel-client` and `tunnel-server` use it to
//!   open and to accept tunnels, and most users want one of those.
//!
//! # How a call travels
//!
//! There is one lock for each tunnel, and one task, which reads. A call is a future and two
//! bodies that work on the tunnel's state machine directly: no channel between tasks, no task
//! on the caller's side unless its request goes on after the first look at it. What is to be
//! sent is written when the transport pulls, everything that is ready in one piece: the open,
//! the message and the half-close of a unary call leave together.
//!
//! A handler runs in a task of its own. If it panics its call ends with INTERNAL; when its
//! call is cancelled, by its caller, a deadline or the end of the tunnel, it is dropped. Services
//! that answer at once may be polled by the tunnel's own task first
//! ([`CallService::poll_inline`]).
//!
//! # What it costs
//!
//! Of a unary call of 16 bytes, both ends in one process, client and server stubs included:
//! 76,500 instructions and 91 allocations in the first version, 60,500 and some 70 now, 114,000 and
//! more allocations for tonic without a tunnel. What was decided for it, each in the docs of its
//! file: fewer locks for each call (9 to 5), no box that can be part of its owner, trailers written
//! straight from the frame, header maps walked once, one buffer of the right size for each batch.
//!
//! At one call at a time none of that matters: there a call is a chain of wake-ups on each side
//! (connection, driver, caller or handler, writer, connection), one longer than what a tokio worker
//! runs without asking others for help. Where the chain starts afresh in its middle, a call takes
//! 0.73 of plain tonic's time instead of 1.1; the same makes larger batches of calls that run
//! together (`pace.rs`).
//!
//! Calls of 64 KiB were slowed by the allocator more than by anything else: 0.65 of plain tonic's
//! rate until glibc keeps its heap, 1.5 since (`heap.rs`).

mod caller;
mod driver;
mod error;
mod handler;
mod headers;
mod heap;
mod info;
mod left;
mod life;
mod message;
mod outbound;
pub mod outer;
mod pace;
pub mod pool;
mod shared;
mod status;
mod tunnel;
mod waiting;

pub use caller::{CallHead, ResponseBody, ResponseFuture, TunnelChannel};
pub use error::TunnelError;
pub use handler::CallService;
pub use info::{AffinityKey, Direction, TunnelId, TunnelInfo};
pub use outbound::{NetworkRole, Outbound};
pub use status::is_movable;
pub use tunnel::Tunnel;
