//! Open gRPC tunnels over any tonic channel.
//!
//! A **forward tunnel** carries calls to the one backend that accepted its stream, whatever load
//! balancer stands between: session affinity, and any number of calls on one stream.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use tonic::transport::Endpoint;
//! use tunnel_client::ForwardChannel;
//!
//! let endpoint = Endpoint::from_static("http://127.0.0.1:50051");
//! let channel = ForwardChannel::builder(endpoint).connect().await?;
//!
//! // Any generated client takes a clone: EchoServiceClient::new(channel.clone())
//! # let _ = channel.clone();
//! # Ok(())
//! # }
//! ```
//!
//! A [`ForwardChannel`] keeps its tunnel up: it opens the next one when a tunnel is lost, drained
//! or too old. A [`ForwardTunnel`] is one tunnel, over any channel, that ends when it ends.
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
//! One that was opened as a [`ForwardTunnel`] stays ended, and one that drains takes no new calls:
//! [`TunnelChannel::draining`] is the moment to open the next one, while calls in flight go on in
//! the old one. Open it over a fresh connection: a tonic channel keeps the one that it has, to the
//! server that drains, which refuses. A [`ForwardChannel`] does all of this.
//!
//! Of the [`EndReason`]s, [`PeerDrained`](EndReason::PeerDrained) and
//! [`PeerClosed`](EndReason::PeerClosed) are a far end that ended the tunnel gracefully (the latter
//! also when its drain found no call to wait for, or reached the deadline with calls left);
//! [`Closed`](EndReason::Closed), [`ClosedWith`](EndReason::ClosedWith) and
//! [`Drained`](EndReason::Drained) are this end; everything else is an
//! [`Error`](EndReason::Error). Among those, [`EndedByPeer`](ConnectionError::EndedByPeer) is a
//! far end that says why, and [`TransportLost`](ConnectionError::TransportLost) has a
//! [cause](TransportError::cause) for programs. Errors say one sentence each; [`Report`] shows one
//! with all that is behind it.
//!
//! # The connection underneath
//!
//! All calls of a tunnel share one HTTP/2 stream, so the stream's window caps the whole tunnel,
//! and a dead peer is noticed only as fast as the connection notices it. [`endpoint_for_tunnels`]
//! sets an [`Endpoint`](tonic::transport::Endpoint) up for both, with a [`Keepalive`] that notices
//! a peer which vanished within 15 s; what it sets can be set again. A [`Gateway`] made of an
//! endpoint is set up so by itself.
//!
//! # Proxies
//!
//! With the feature `proxy`, `Gateway::proxy_from_env` and `ProxyConnector`
//! connect through the HTTP CONNECT proxies that `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
//! `NO_PROXY` name.
//!
//! # How long things may take
//!
//! | what | default | set by |
//! |---|---|---|
//! | opening a tunnel | 20 s | `open_timeout` of the builders |
//! | within that, the far end's settings (forward tunnels) | 10 s | [`ConfigBuilder::settings_timeout`] |
//! | noticing a peer that vanished | 15 s | [`Keepalive`] |
//! | connecting, all addresses of a name together | 6 s | `Endpoint::connect_timeout` |
//! | waiting between attempts | up to 30 s, 2 min after a refusal | [`Backoff`] |
//! | the age of a tunnel | no limit | `max_age` of the builders |

mod backoff;
mod dial;
mod endpoint;
mod forward;
mod gateway;
mod keepalive;
mod links;
#[cfg(feature = "proxy")]
mod proxy;
mod reverse;

pub use backoff::Backoff;
pub use endpoint::{endpoint_for_tunnels, endpoint_for_tunnels_with};
pub use forward::{
    ForwardChannel, ForwardChannelBuilder, ForwardResponseFuture, ForwardTunnel, WhenNoTunnel,
};
pub use gateway::Gateway;
pub use keepalive::{Keepalive, too_many_pings};
pub use links::{Attempt, LinkError, LinkState, LinkStatus, LinksHandle, StandIn, StopReason};
#[cfg(feature = "proxy")]
pub use proxy::ProxyConnector;
pub use reverse::{ReverseTunnelServer, ReverseTunnelServerBuilder};
pub use tunnel_core::{
    Config, ConfigBuilder, ConfigError, ConnectionError, EndReason, Report, Revisions, Stats,
    TransportCause, TransportError,
};
pub use tunnel_tonic::pool::{ServedBy, WaitForReady};
pub use tunnel_tonic::{
    Direction, ResponseBody, ResponseFuture, TunnelChannel, TunnelError, TunnelId, TunnelInfo,
    is_movable,
};
