//! Accept gRPC tunnels in a tonic server.
//!
//! A [`TunnelServiceHandler`] holds the services that tunnels reach; its
//! [`service`](TunnelServiceHandler::service) is added to a tonic server like any other. The same
//! services can be offered directly beside it.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! # use tonic::service::Routes;
//! # let echo = Routes::default();
//! use tonic::transport::Server;
//! use tunnel_server::{TunnelServiceHandler, server_for_tunnels};
//!
//! let handler = TunnelServiceHandler::builder()
//!     .add_routes(echo) // or .add_service(EchoServiceServer::new(Echo))
//!     .build();
//! server_for_tunnels(Server::builder())
//!     .add_service(handler.service())
//!     .serve("127.0.0.1:50051".parse()?)
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Reverse tunnels
//!
//! A device that cannot be dialled opens a tunnel to this server, and the server calls the device
//! through it. The same handler accepts such tunnels and has channels for generated clients:
//!
//! ```
//! # use std::time::Duration;
//! # use tonic::Status;
//! use tunnel_server::{AffinityKey, Opening, TunnelServiceHandler};
//!
//! let handler = TunnelServiceHandler::builder()
//!     .affinity_key(|opening: &Opening| opening.metadata_str("device-id").map(AffinityKey::from))
//!     .max_tunnels_per_key(4)
//!     .build();
//!
//! // DeviceClient::new(handler.key_as_channel("device-17")): that device, by any of its tunnels.
//! let device = handler.key_as_channel("device-17");
//! // DeviceClient::new(handler.as_channel()): each call to the next device.
//! let any = handler.as_channel();
//! assert!(!device.is_ready() && !any.is_ready());
//!
//! // Kick a device.
//! handler.close_key_with("device-17", Status::permission_denied("the device was revoked"));
//! # async fn later(handler: &TunnelServiceHandler, any: tunnel_server::ReverseChannel) -> Result<(), Status> {
//! // Call every device.
//! any.wait_for_ready(Duration::from_secs(30)).await?;
//! for tunnel in handler.all_reverse_tunnels() {
//!     println!("{:?}: {}", tunnel.info().key(), tunnel.id()); // DeviceClient::new(tunnel)
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A reverse tunnel takes calls from the moment it is ready until one of its ends drains it or it ends.
//! [`ReverseChannel`] says what happens to calls whose tunnel ends.
//! [`on_open`](TunnelServiceHandlerBuilder::on_open),
//! [`on_close`](TunnelServiceHandlerBuilder::on_close) and
//! [`events`](TunnelServiceHandler::events) report tunnels that open and close.
//!
//! # A proxy to devices
//!
//! [`TunnelServiceHandler::proxy`] is a service that passes any gRPC call on to the device whose key is in the
//! call's metadata or authority, without generated code at the gateway.
//!
//! # Request extensions
//!
//! A tunnelled call has copies of the extensions of the request that opened its tunnel: the peer's
//! address ([`Request::remote_addr`](tonic::Request::remote_addr)), its certificates
//! (`Request::peer_certs`, with one of the TLS features), and everything from layers and
//! interceptors of the outer server. It also has a [`TunnelInfo`], with the metadata of the opening.
//!
//! # Who may open a tunnel, and who may call
//!
//! These are two questions, with two hooks:
//!
//! ```
//! # use tonic::{Request, Status, service::{Routes, interceptor::InterceptedService}};
//! # use tonic::transport::Server;
//! # use tunnel_server::TunnelServiceHandler;
//! # fn may_open(request: Request<()>) -> Result<Request<()>, Status> { Ok(request) }
//! # fn may_call(request: Request<()>) -> Result<Request<()>, Status> { Ok(request) }
//! # let echo = Routes::default();
//! use tonic::service::InterceptorLayer;
//!
//! let handler = TunnelServiceHandler::builder()
//!     .add_routes(echo)
//!     .layer(InterceptorLayer::new(may_call)) // sees each call of a tunnel
//!     .build();
//! let tunnels = InterceptedService::new(handler.service(), may_open); // sees each opening
//! let server = Server::builder().add_service(tunnels);
//! # let _ = server;
//! ```
//!
//! If the decision needs I/O, such as checking a token, use
//! [`admit`](TunnelServiceHandlerBuilder::admit), which is asynchronous and knows the tunnel's key.
//!
//! Layers, timeouts and limits of the outer server apply to the opening only, a call that lasts as long
//! as its tunnel.
//!
//! # Testing
//!
//! A tunnel needs no sockets: the tunnel service is itself a channel for the other end. Everything runs in one
//! process, on one thread if need be, and with tokio's paused time. (The calls here are those of `tonic-health`.)
//!
//! ```
//! use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
//! use tunnel_client::{ForwardTunnel, Gateway, ReverseTunnelServer};
//! use tunnel_server::TunnelServiceHandler;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (_, service) = tonic_health::server::health_reporter();
//! let handler = TunnelServiceHandler::builder().add_service(service.clone()).build();
//!
//! let tunnel = ForwardTunnel::new(handler.service()).open().await?;
//! HealthClient::new(tunnel).check(HealthCheckRequest::default()).await?;
//!
//! let device = ReverseTunnelServer::builder(Gateway::over(handler.service()))
//!     .add_service(service)
//!     .build();
//! let handle = device.handle();
//! tokio::spawn(device.run());
//! handle.connected().await?;
//! HealthClient::new(handler.as_channel()).check(HealthCheckRequest::default()).await?;
//! handle.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Stopping
//!
//! [`TunnelServiceHandler::serve`] serves until a signal, drains the tunnels, and closes all connections
//! after a timeout; [`Shutdown`] lists the steps. Tonic's `serve_with_shutdown` would wait for a frozen
//! client without end.
//!
//! # The connection underneath
//!
//! All calls of a tunnel share one HTTP/2 stream. [`server_for_tunnels`] sets large windows on a
//! [`Server`](tonic::transport::Server), and a keepalive that notices frozen and vanished clients. If
//! ordinary clients use the same listener, use [`server_for_tunnels_and_calls`].
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
//! # Compression
//!
//! `send_compressed` and `accept_compressed` of generated clients and servers work through a tunnel as
//! without one, with tonic's features. With the features `gzip`, `deflate` and `zstd` of this crate,
//! messages are also decompressed towards peers that do not carry them compressed (the Go and Python
//! libraries), and whole tunnels can be compressed instead:
//! [`send_compressed`](TunnelServiceHandlerBuilder::send_compressed).
//!
//! # Features
//!
//! `metrics` is described above. `gzip`, `deflate`, `zstd`, `tls-ring`, `tls-aws-lc`, `tls-native-roots` and
//! `tls-webpki-roots` are named as tonic's features, and turn these on. Default: none.
//!
//! # Versions
//!
//! Needs Rust 1.88 or later and tonic 0.14. Types of tonic are part of the API, so a new `0.x` of tonic is
//! a new `0.x` of these crates: upgrade both together.

mod accepted;
mod admission;
mod age;
mod builder;
mod opening;
mod openings;
mod origin;
mod policy;
mod pool;
mod proxy;
mod registry;
mod returns;
mod serve;
mod server;
mod service;

pub use accepted::AcceptedTunnel;
// For simulations.
#[doc(hidden)]
pub use admission::Admission;
pub use builder::TunnelServiceHandlerBuilder;
pub use opening::Opening;
pub use policy::WhenKeyIsFull;
pub use pool::{ReverseChannel, ReverseResponseFuture};
pub use proxy::{KeyFrom, KeyProxy};
pub use serve::Shutdown;
pub use server::{server_for_tunnels, server_for_tunnels_and_calls, server_for_tunnels_with};
pub use service::{TunnelServiceHandler, TunnelServiceServer};
pub use tunnel_core::{
    Config, ConfigBuilder, ConfigError, ConnectionError, EndReason, Initiator, Limit, Report,
    Revisions, Side, Stats, TransportCause, TransportError,
};
pub use tunnel_tonic::pool::{Balance, ServedBy, WaitForReady, WhenNoTunnel};
pub use tunnel_tonic::{
    AffinityKey, Direction, ForwardTo, ResponseBody, ResponseFuture, TunnelChannel, TunnelError,
    TunnelEvent, TunnelEvents, TunnelId, TunnelInfo, is_safe_to_retry, tonic_status,
};

/// Types of the wire that errors and reasons contain. [`tonic_status`] converts a status to tonic's.
pub mod wire {
    pub use tunnel_core::{Code, Status, StatusDetail, StreamError, StreamFault};
}
