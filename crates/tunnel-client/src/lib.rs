//! Open gRPC tunnels over any tonic channel.
//!
//! A **forward tunnel** carries calls to the one backend that accepted its stream, even behind a
//! load balancer: session affinity, and any number of calls on one stream.
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
//! or too old. A [`ForwardTunnel`] opens a single tunnel over any channel and does not replace it.
//!
//! A **reverse tunnel** carries calls in the opposite direction: the device that dialled serves
//! them. A [`ReverseTunnelServer`] opens such tunnels and keeps them up.
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
//! # Request extensions
//!
//! A call that a reverse tunnel serves has the extensions of the response that accepted its tunnel: the
//! gateway's address ([`Request::remote_addr`](tonic::Request::remote_addr)), and with a verifier of
//! TLS its certificates (`PeerCertificates`). It also has a [`TunnelInfo`], with the
//! [key](TunnelInfo::key) that the gateway gave the tunnel. [`Gateway`] says which gateways show what.
//!
//! # When a forward tunnel ends
//!
//! A tunnel of a [`ForwardTunnel`] that has ended stays ended, and one that is draining takes no
//! new calls. [`TunnelChannel::draining`] resolves when the next one should be opened; calls in
//! flight continue in the old one. Open the next one over a new connection: a tonic channel would
//! keep its connection to the server that is draining, which refuses tunnels. A [`ForwardChannel`]
//! does all of this.
//!
//! [`EndReason`] says why a tunnel ended:
//!
//! - The peer ended it gracefully: [`PeerDrained`](EndReason::PeerDrained) or
//!   [`PeerClosed`](EndReason::PeerClosed).
//! - This end did: [`Closed`](EndReason::Closed), [`ClosedWith`](EndReason::ClosedWith) or
//!   [`Drained`](EndReason::Drained).
//! - An [`Error`](EndReason::Error): [`EndedByPeer`](ConnectionError::EndedByPeer) has the peer's
//!   status, [`TransportLost`](ConnectionError::TransportLost) has a
//!   [cause](TransportError::cause) for programs.
//!
//! The text of an error is one sentence. [`Report`] also shows its sources.
//!
//! # The connection underneath
//!
//! All calls of a tunnel share one HTTP/2 stream, so its window limits the whole tunnel.
//! [`endpoint_for_tunnels`] sets large windows on an [`Endpoint`](tonic::transport::Endpoint), and a
//! [`Keepalive`] that notices a vanished peer within 15 s. A [`Gateway`] made from an endpoint has
//! these settings already.
//!
//! # Features
//!
//! `tls-ring`, `tls-aws-lc`, `tls-native-roots` and `tls-webpki-roots` are tonic's features of these
//! names, and add `Gateway::tls_config_with_verifier`. `gzip`, `deflate` and `zstd`, `metrics`, `dns` and `proxy` are
//! described below. Default: none.
//!
//! # Several gateways
//!
//! A [`ReverseTunnelServer`] and a [`ForwardChannel`] keep tunnels to each of their gateways up. There are three ways to
//! name them:
//!
//! - One by one: `gateway` of the builders, and [`LinksHandle::add_gateway`] and
//!   [`remove_gateway`](LinksHandle::remove_gateway) at run time.
//! - A name with several addresses, which are looked up again and again: [`Gateway::each_address`] with a [`Lookup`].
//!   The feature `dns` adds SRV records and other name servers than those of the system.
//! - One address of a load balancer, with several tunnels to it: `tunnels_per_gateway` of the builders.
//!
//! # Proxies
//!
//! With the feature `proxy`, `Gateway::proxy_from_env` and `ProxyConnector`
//! connect through the HTTP CONNECT proxies that `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
//! `NO_PROXY` name.
//!
//! # Testing
//!
//! A tunnel needs no sockets: the service of a `TunnelServiceHandler` of `tunnel-server` is itself a
//! channel, for a [`ForwardTunnel`] or by [`Gateway::over`]. When one end is dropped or closed, the
//! other ends. Tokio's paused time works. (The call here is one of `tonic-health`.)
//!
//! ```
//! use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
//! use tunnel_client::{ForwardChannel, Gateway};
//! use tunnel_server::TunnelServiceHandler;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (_, service) = tonic_health::server::health_reporter();
//! let handler = TunnelServiceHandler::builder().add_service(service).build();
//!
//! let gateway = Gateway::over(handler.service());
//! let channel = ForwardChannel::builder(gateway).connect().await?;
//! HealthClient::new(channel).check(HealthCheckRequest::default()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Compression
//!
//! `send_compressed` and `accept_compressed` of generated clients and servers work through a tunnel as
//! without one, with tonic's features. With the features `gzip`, `deflate` and `zstd` of this crate,
//! messages are also decompressed towards peers that do not carry them compressed (the Go and Python
//! libraries), and the whole tunnel can be compressed instead: `send_compressed` of
//! [`ForwardTunnel`], [`ForwardChannelBuilder`] and [`ReverseTunnelServerBuilder`].
//!
//! # Timeouts
//!
//! | what | default | set by |
//! |---|---|---|
//! | opening a tunnel | 20 s | `open_timeout` of the builders |
//! | within that, the far end's settings (forward tunnels) | 10 s | [`ConfigBuilder::settings_timeout`] |
//! | noticing a vanished peer | 15 s | [`Keepalive`] |
//! | connecting, to all addresses of a name | 6 s | `Endpoint::connect_timeout` |
//! | waiting between attempts | up to 30 s, 2 min after a refusal | [`Backoff`] |
//! | the age of a tunnel | no limit | `max_tunnel_age` of the builders |
//!
//! # Logs, traces and metrics
//!
//! Log lines and spans go through [`tracing`](https://docs.rs/tracing):
//!
//! - At `info` tunnels log when they open, drain, close (with reason, duration, calls and bytes) and are refused,
//!   in a span with the fields `tunnel.id`, `tunnel.direction`, `tunnel.role`, `tunnel.key` and `tunnel.peer`.
//!   Calls log nothing.
//! - At `debug` each call has a span, target `tunnel_tonic::call`, with `rpc.system`, `rpc.service`, `rpc.method`,
//!   `rpc.grpc.status_code`, `tunnel.id` and `tunnel.key`; layers and handlers run in it. A call made is a child of the
//!   current span. `otel.name`, `otel.kind` and `otel.status_code` are for `tracing-opentelemetry`.
//!
//! `tunnel.id` is [`TunnelInfo::shared_id`], the same at both ends.
//!
//! A trace context is metadata of a call (`traceparent`), and travels through tunnels as any other.
//! `inject_trace` of what makes calls and `extract_trace` of what serves them join the spans of both ends; the
//! spans then have the level `info`. The repository's example `tracing` has one trace over a client, a gateway
//! and a device. The span of a tunnel ends with it, and is a trace of its own: give the layer of
//! `tracing-opentelemetry` a filter without `tunnel_tonic::tunnel`.
//!
//! With the feature `metrics`, counters, gauges and histograms are recorded through the
//! [`metrics`](https://docs.rs/metrics) facade. The repository's `docs/METRICS.md` lists them.
//!
//! # Versions
//!
//! Needs Rust 1.88 or later and tonic 0.14. Types of tonic are part of the API, so a new `0.x` of tonic is
//! a new `0.x` of these crates: upgrade both together.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod connection;
mod dial;
#[cfg(feature = "dns")]
mod dns;
mod endpoint;
mod forward;
mod gateway;
mod links;
mod lookup;
#[cfg(feature = "proxy")]
mod proxy;
mod reverse;
#[cfg(feature = "_tls-any")]
mod tls;

pub use endpoint::{Keepalive, endpoint_for_tunnels, endpoint_for_tunnels_with, too_many_pings};
pub use forward::{ForwardChannel, ForwardChannelBuilder, ForwardResponseFuture, ForwardTunnel};
pub use gateway::Gateway;
/// The decisions of links, for simulations.
#[doc(hidden)]
pub mod simulation {
    pub use crate::links::{Beside, Draw, Plan, Steps, Told};
}

pub use links::{
    Attempt, Backoff, DownReason, FallbackTunnel, LinkState, LinkStatus, LinksHandle, LinksStopped,
    StopReason,
};
pub use lookup::Lookup;
#[cfg(feature = "proxy")]
pub use proxy::ProxyConnector;
pub use reverse::{ReverseTunnelServer, ReverseTunnelServerBuilder};
#[cfg(feature = "_tls-any")]
pub use tls::PeerCertificates;
/// The crate of [`ServerCertVerifier`](rustls::client::danger::ServerCertVerifier), in the version of tonic.
#[cfg(feature = "_tls-any")]
pub use tokio_rustls::rustls;
pub use tunnel_core::{
    Config, ConfigBuilder, ConfigError, ConnectionError, EndReason, Initiator, Limit, Report,
    Revisions, Side, Stats, TransportCause, TransportError,
};
pub use tunnel_tonic::pool::{ServedBy, WaitForReady, WhenNoTunnel};
pub use tunnel_tonic::{
    AffinityKey, Direction, ForwardTo, ResponseBody, ResponseFuture, TunnelChannel, TunnelError,
    TunnelEvent, TunnelEvents, TunnelId, TunnelInfo, is_safe_to_retry, tonic_status,
};

/// Types of the wire that errors and reasons contain. [`tonic_status`] converts a status to tonic's.
pub mod wire {
    pub use tunnel_core::{Code, Status, StatusDetail, StreamError, StreamFault};
}
