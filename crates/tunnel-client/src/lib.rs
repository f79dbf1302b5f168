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
//! A **reverse tunnel** carries calls the other way: the device that dialled serves them. A
//! [`ReverseTunnelServer`] opens such tunnels and keeps them up.
//!
//! ```no_run
//! # async fn example() {
//! # use tonic::service::Routes;
//! # let device = Routes::default();
//! use tonic::transport::Endpoint;
//! use tunnel_client::ReverseTunnelServer;
//!
//! ReverseTunnelServer::builder(Endpoint::from_static("http://gateway.example:50051"))
//!     .add_routes(device) // or .add_service(DeviceServer::new(..))
//!     .run()
//!     .await;
//! # }
//! ```
//!
//! # When a forward tunnel ends
//!
//! A tunnel that has ended stays ended, and one that drains takes no new calls:
//! [`TunnelChannel::draining`] is the moment to open the next one, while calls in flight go on in
//! the old one. The tonic channel under it reconnects by itself, so that can be done on the same
//! channel. (Reverse tunnels are kept up by [`ReverseTunnelServer::run`].)
//!
//! ```no_run
//! # use std::time::Duration;
//! # use tonic::transport::Endpoint;
//! # use tunnel_client::{ForwardTunnel, TunnelChannel, endpoint_for_tunnels};
//! # fn use_from_now_on(tunnel: TunnelChannel) {}
//! # async fn example() {
//! let endpoint = endpoint_for_tunnels(Endpoint::from_static("http://127.0.0.1:50051"));
//! let channel = endpoint.connect_lazy();
//! loop {
//!     match ForwardTunnel::new(channel.clone()).open().await {
//!         Ok(tunnel) => {
//!             let draining = tunnel.draining();
//!             use_from_now_on(tunnel);
//!             draining.await;
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
//! also when its drain found no call to wait for, or reached the deadline with calls left);
//! [`Closed`](EndReason::Closed), [`ClosedWith`](EndReason::ClosedWith) and
//! [`Drained`](EndReason::Drained) are this end; everything else is an
//! [`Error`](EndReason::Error). Among those, [`EndedByPeer`](ConnectionError::EndedByPeer) is a
//! far end that says why, and [`too_many_pings`] tells one that does not want to be pinged.
//!
//! # The connection underneath
//!
//! All calls of a tunnel share one HTTP/2 stream, so the stream's window caps the whole tunnel,
//! and a dead peer is noticed only as fast as the connection notices it. [`endpoint_for_tunnels`]
//! sets an [`Endpoint`](tonic::transport::Endpoint) up for both, with a [`Keepalive`] that notices
//! a peer which vanished within 15 s; what it sets can be set again. A [`Gateway`] made of an
//! endpoint is set up so by itself.
//!
//! # How long things may take
//!
//! | what | default | set by |
//! |---|---|---|
//! | opening a tunnel | 20 s | [`ForwardTunnel::open_timeout`], [`ReverseTunnelServerBuilder::open_timeout`] |
//! | within that, the far end's settings (forward tunnels) | 10 s | [`ConfigBuilder::settings_timeout`] |
//! | noticing a peer that vanished | 15 s | [`Keepalive`] |
//! | waiting between attempts (reverse tunnels) | up to 30 s, 2 min after a refusal | [`Backoff`] |

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
