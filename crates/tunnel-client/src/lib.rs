//! Open gRPC tunnels over any tonic channel.
//!
//! A **forward tunnel** carries calls to the one backend that accepted its stream, whatever load
//! balancer stands between: session affinity, and any number of calls on one stream.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use tonic::transport::Endpoint;
//! use tunnel_client::{ForwardTunnel, endpoint_for_tunnels};
//!
//! let endpoint = endpoint_for_tunnels(Endpoint::from_static("http://127.0.0.1:50051"));
//! let tunnel = ForwardTunnel::new(endpoint.connect().await?).open().await?;
//!
//! // Any generated client takes a clone: EchoServiceClient::new(tunnel.clone())
//! # let _ = tunnel.clone();
//! tunnel.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # When a tunnel ends
//!
//! A tunnel that has ended stays ended. The tonic channel under it reconnects by itself, so the
//! next tunnel is opened on the same channel:
//!
//! ```no_run
//! # use std::time::Duration;
//! # use tonic::transport::Endpoint;
//! # use tunnel_client::{ForwardTunnel, TunnelChannel};
//! # async fn use_it(tunnel: &TunnelChannel) {}
//! # async fn example() {
//! let channel = Endpoint::from_static("http://127.0.0.1:50051").connect_lazy();
//! loop {
//!     match ForwardTunnel::new(channel.clone()).open().await {
//!         Ok(tunnel) => {
//!             use_it(&tunnel).await;
//!             eprintln!("the tunnel has ended: {}", tunnel.closed().await);
//!         }
//!         Err(error) => eprintln!("{error}"),
//!     }
//!     tokio::time::sleep(Duration::from_secs(1)).await; // better: a backoff with jitter
//! }
//! # }
//! ```
//!
//! Of the [`EndReason`]s, [`PeerDrained`](EndReason::PeerDrained) and
//! [`PeerClosed`](EndReason::PeerClosed) are a far end that ended the tunnel in order (the latter
//! also when its drain reached the deadline with calls left), [`Closed`](EndReason::Closed) and
//! [`Drained`](EndReason::Drained) this end; everything else is an
//! [`Error`](EndReason::Error).
//!
//! # The connection underneath
//!
//! All calls of a tunnel share one HTTP/2 stream, so the stream's window caps the whole tunnel,
//! and a dead peer is noticed only as fast as the connection notices it. [`endpoint_for_tunnels`]
//! sets an [`Endpoint`](tonic::transport::Endpoint) up for both; what it sets can be set again.

mod backoff;
mod dial;
mod endpoint;
mod forward;
mod gateway;
mod keepalive;
mod reverse;

pub use backoff::Backoff;
pub use endpoint::{endpoint_for_tunnels, endpoint_for_tunnels_with};
pub use forward::ForwardTunnel;
pub use gateway::Gateway;
pub use keepalive::{Keepalive, too_many_pings};
pub use reverse::{
    Attempt, LinkError, LinkState, LinkStatus, ReverseTunnelHandle, ReverseTunnelServer,
    ReverseTunnelServerBuilder, StandIn, StopReason,
};
pub use tunnel_core::{
    Config, ConfigBuilder, ConfigError, ConnectionError, EndReason, Revisions, Stats,
};
pub use tunnel_tonic::{
    Direction, ResponseBody, ResponseFuture, TunnelChannel, TunnelError, TunnelId, TunnelInfo,
};
