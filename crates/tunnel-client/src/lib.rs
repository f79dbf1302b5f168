//! Open gRPC tunnels over any tonic channel.
//!
//! A **forward tunnel** carries calls to the one backend that accepted its stream, whatever load
//! balancer stands between: session affinity, and any number of calls on one stream.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use tunnel_client::ForwardTunnel;
//! use tonic::transport::Endpoint;
//!
//! let channel = Endpoint::from_static("http://localhost:50051").connect().await?;
//! let tunnel = ForwardTunnel::new(channel).open().await?;
//!
//! // Any generated client takes a clone: EchoServiceClient::new(tunnel.clone())
//! # let _ = tunnel.clone();
//! tunnel.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # The connection underneath
//!
//! All calls of a tunnel share one HTTP/2 stream, so the stream's window caps the whole tunnel,
//! and a dead peer is noticed only as fast as the connection notices it. [`endpoint_for_tunnels`]
//! sets an [`Endpoint`](tonic::transport::Endpoint) up for both; what it sets can be set again.

mod endpoint;
mod forward;

pub use endpoint::endpoint_for_tunnels;
pub use forward::ForwardTunnel;
pub use tunnel_core::{
    Config, ConfigBuilder, ConfigError, ConnectionError, EndReason, Revisions, Stats,
};
pub use tunnel_tonic::{
    Direction, ResponseBody, ResponseFuture, TunnelChannel, TunnelError, TunnelId, TunnelInfo,
};
