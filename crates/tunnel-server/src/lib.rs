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
//! A device that cannot be dialled dials this server and *serves*; the server calls it. The same
//! handler accepts such tunnels, and hands out channels for generated clients:
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
//! assert!(!device.ready() && !any.ready());
//!
//! // Kick a device.
//! handler.close_key("device-17", Status::permission_denied("the device was revoked"));
//! # async fn later(handler: &TunnelServiceHandler, any: tunnel_server::ReverseChannel) -> Result<(), Status> {
//! // Call all there are.
//! any.wait_for_ready(Duration::from_secs(30)).await?;
//! for tunnel in handler.all_reverse_tunnels() {
//!     println!("{:?}: {}", tunnel.info().key(), tunnel.id()); // DeviceClient::new(tunnel)
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A tunnel is in the pool of all, and in that of its key, from when it is ready until one of its
//! ends drains it or it ends. [`ReverseChannel`] says what becomes of calls whose tunnel goes away
//! under them. [`on_open`](TunnelServiceHandlerBuilder::on_open),
//! [`on_close`](TunnelServiceHandlerBuilder::on_close) and
//! [`events`](TunnelServiceHandler::events) tell of tunnels as they come and go.
//!
//! # What a tunnelled call knows
//!
//! Its extensions are copies of those of the request that opened the tunnel: what a layer or an
//! interceptor of the outer server put there, the peer's address
//! ([`Request::remote_addr`](tonic::Request::remote_addr)) and its certificates
//! (`Request::peer_certs`, with one of tonic's TLS features) among them, and a [`TunnelInfo`] with the
//! metadata the tunnel was opened with.
//!
//! # Who may open a tunnel, and who may call
//!
//! Two different questions, with two places to answer them:
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
//! Where the decision has to wait for something, such as a token to be checked elsewhere, use
//! [`admit`](TunnelServiceHandlerBuilder::admit): it is asynchronous, and sees the tunnel's key.
//!
//! Layers, timeouts and limits of the outer server see the opening alone, one call that lasts as
//! long as its tunnel.
//!
//! # Stopping
//!
//! [`TunnelServiceHandler::serve`] serves until a signal, drains the tunnels, and closes by a deadline
//! whatever clients still hold open; [`Shutdown`] says in which order. With tonic's own
//! `serve_with_shutdown` a client that has frozen keeps the server from ending.
//!
//! # The connection underneath
//!
//! All calls of a tunnel share one HTTP/2 stream. [`server_for_tunnels`] sets a
//! [`Server`](tonic::transport::Server) up with windows that do not hold it back, and with keepalive
//! that notices frozen and vanished clients. Where ordinary clients call services at the same
//! listener, use [`server_for_tunnels_and_calls`].

mod age;
mod builder;
mod events;
mod handle;
mod opening;
mod origin;
mod policy;
mod pool;
mod registry;
mod serve;
mod server;
mod service;

pub use builder::TunnelServiceHandlerBuilder;
pub use events::{TunnelEvent, TunnelEvents};
pub use handle::TunnelHandle;
pub use opening::Opening;
pub use policy::WhenKeyIsFull;
pub use pool::{ReverseChannel, ReverseResponseFuture};
pub use serve::Shutdown;
pub use server::{server_for_tunnels, server_for_tunnels_and_calls, server_for_tunnels_within};
pub use service::{TunnelService, TunnelServiceHandler};
pub use tunnel_core::{
    Config, ConfigBuilder, ConfigError, ConnectionError, EndReason, Report, Revisions, Stats,
    TransportCause, TransportError,
};
pub use tunnel_tonic::pool::{Balance, ServedBy, WaitForReady};
pub use tunnel_tonic::{
    AffinityKey, Direction, ResponseBody, ResponseFuture, TunnelChannel, TunnelId, TunnelInfo,
    is_movable,
};
