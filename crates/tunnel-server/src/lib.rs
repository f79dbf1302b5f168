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
//! Layers, timeouts and limits of the outer server see the opening alone, one call that lasts as
//! long as its tunnel.
//!
//! # The connection underneath
//!
//! All calls of a tunnel share one HTTP/2 stream. [`server_for_tunnels`] sets a
//! [`Server`](tonic::transport::Server) up with windows that do not hold it back.

mod builder;
mod registry;
mod server;
mod service;

pub use builder::TunnelServiceHandlerBuilder;
pub use server::server_for_tunnels;
pub use service::{TunnelService, TunnelServiceHandler};
pub use tunnel_core::{
    Config, ConfigBuilder, ConfigError, ConnectionError, EndReason, Revisions, Stats,
};
pub use tunnel_tonic::{Direction, TunnelId, TunnelInfo};
