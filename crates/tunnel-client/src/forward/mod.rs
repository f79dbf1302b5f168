//! Forward tunnels: this side dials and makes the calls.

mod channel;
mod tunnel;

pub use channel::{ForwardChannel, ForwardChannelBuilder, ForwardResponseFuture};
pub use tunnel::ForwardTunnel;
pub use tunnel_tonic::pool::WhenNoTunnel;
