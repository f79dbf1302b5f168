//! The paths of the suite through bridges.
//!
//! A foreign end is a bridge: a caller's bridge accepts plain calls and makes them through a
//! tunnel, a handler's bridge accepts a tunnel and makes its calls at a plain server. So the callers
//! and handlers of all cases are those of the suite, whatever the two ends of the tunnel are.
//!
//! ```text
//! suite ─plain→ caller's bridge ═tunnel→ link ═→ handler's bridge ─plain→ scripted service
//! ```
//!
//! With Rust at an end there is no bridge at that end. The link is a proxy that can cut the tunnel.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use http::{HeaderMap, HeaderValue};
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::transport::Server;
use tower::ServiceExt;
use tunnel_client::{Config, ForwardTunnel, ReverseTunnelServer, Revisions, endpoint_for_tunnels};
use tunnel_conformance::path::config;
use tunnel_conformance::{FaultProxy, Host, Offer, Path, TcpServer, TestChannel};
use tunnel_server::{AffinityKey, Opening, TunnelServiceHandler, server_for_tunnels};

use crate::bridge::Bridges;
use crate::matrix::{Direction, Pair, Peer, Revision};
use crate::plain;
use crate::tunnel::{KEY, KEY_METADATA, Tunnel};

/// The metadata with which a call names its tunnel at a caller's bridge. Reverse tunnels are opened
/// with it.
const TUNNEL_KEY: &str = "x-tunnel";

/// The metadata with which a call names its server at a handler's bridge.
const BACKEND_KEY: &str = "x-backend";

/// The name of `grpc-timeout` on the way to a bridge. tonic would enforce that one itself.
const TIMEOUT_KEY: &str = "x-timeout";

/// The timeout for a reverse tunnel to appear at the gateway.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// A path through the tunnels of a pair.
#[derive(Debug)]
pub(crate) struct PeerPath {
    pub(crate) pair: Pair,
    pub(crate) bridges: Arc<Bridges>,
}

impl Path for PeerPath {
    fn host(&self, offer: Offer) -> BoxFuture<'_, Box<dyn Host>> {
        async move {
            let revisions = match self.pair.revision {
                Revision::One => Revisions::ZeroAndOne,
                Revision::Zero => Revisions::OnlyZero,
            };
            let config = config(&offer, revisions);
            let handler = match self.pair.handler {
                Peer::Rust => Handler::Rust(offer.routes),
                peer => Handler::Bridge(
                    peer,
                    plain::serve(offer.routes.prepare().into_axum_router()).await,
                ),
            };
            let ends = Ends {
                pair: self.pair,
                bridges: Arc::clone(&self.bridges),
                config,
                handler,
            };
            match self.pair.direction {
                Direction::Plain => Box::new(Plain(ends)) as Box<dyn Host>,
                Direction::Forward => Box::new(Forward::start(ends).await),
                Direction::Reverse => Box::new(Reverse::start(ends).await),
                Direction::Program => Box::new(Program::start(ends).await),
            }
        }
        .boxed()
    }
}

/// What serves the calls.
enum Handler {
    /// The services, at the handler's end of the tunnel.
    Rust(Routes),
    /// A bridge, and behind it a plain server with the services.
    Bridge(Peer, SocketAddr),
}

/// What both directions have.
struct Ends {
    pair: Pair,
    bridges: Arc<Bridges>,
    config: Config,
    handler: Handler,
}

impl Ends {
    fn address_of(&self, peer: Peer, command: &'static str, port: usize) -> SocketAddr {
        let bridge = self.bridges.get(peer, command, self.pair.revision);
        bridge.expect("the bridge starts").address(port)
    }

    /// A name for a new tunnel. Bridges outlive cases, and ports are used again, so no two tunnels
    /// have the same name.
    fn name() -> String {
        static OPENED: AtomicUsize = AtomicUsize::new(0);
        format!("tunnel-{}", OPENED.fetch_add(1, Ordering::Relaxed))
    }

    /// A channel whose calls carry the names of the next hops.
    fn channel<S>(&self, channel: S, tunnel: Option<&str>) -> TestChannel
    where
        S: tower::Service<http::Request<Body>, Response = http::Response<Body>>,
        S: Clone + Send + Sync + 'static,
        S::Error: Into<tower::BoxError>,
        S::Future: Send + 'static,
    {
        let mut hops = HeaderMap::new();
        let mut add = |key, value: &str| {
            let value = HeaderValue::from_str(value).expect("an address is legal in a header");
            hops.insert(key, value);
        };
        if let Some(tunnel) = tunnel {
            add(TUNNEL_KEY, tunnel);
        }
        if let Handler::Bridge(_, backend) = &self.handler {
            add(BACKEND_KEY, &backend.to_string());
        }
        TestChannel::new(
            channel.map_request(move |mut request: http::Request<Body>| {
                request.headers_mut().extend(hops.clone());
                request
            }),
        )
    }

    /// A channel through a caller's bridge.
    async fn through(&self, bridge: SocketAddr, tunnel: Option<&str>) -> TestChannel {
        let connected = plain::endpoint(bridge).connect().await;
        let channel = connected.expect("the bridge accepts a connection");
        let renamed = channel.map_request(|mut request: http::Request<Body>| {
            if let Some(timeout) = request.headers_mut().remove("grpc-timeout") {
                request.headers_mut().insert(TIMEOUT_KEY, timeout);
            }
            request
        });
        self.channel(renamed, tunnel)
    }
}

/// Cuts all connections, and refuses new ones.
fn cut(link: &FaultProxy) {
    link.set_target(None);
    link.reset();
}

/// Calls through the handler's bridge, without a tunnel.
struct Plain(Ends);

impl Host for Plain {
    fn connect(&self) -> BoxFuture<'_, TestChannel> {
        let bridge = self.0.address_of(self.0.pair.handler, "relay", 0);
        self.0.through(bridge, None).boxed()
    }
}

/// Calls through a gateway and an agent of the program `tunnel`. A foreign caller is a bridge before the gateway, a
/// foreign handler one behind the agent.
struct Program {
    ends: Ends,
    tunnel: Tunnel,
    _server: Option<TcpServer>,
}

impl Program {
    async fn start(ends: Ends) -> Self {
        let (address, server) = match &ends.handler {
            Handler::Rust(routes) => {
                let server = TcpServer::start(Server::builder(), routes.clone()).await;
                (server.address(), Some(server))
            }
            Handler::Bridge(peer, _) => (ends.address_of(*peer, "relay", 0), None),
        };
        Self {
            tunnel: Tunnel::start(&ends.bridges.tunnel(), address)
                .await
                .expect("gateway and agent start"),
            ends,
            _server: server,
        }
    }
}

impl Host for Program {
    fn connect(&self) -> BoxFuture<'_, TestChannel> {
        async {
            let gateway = self.tunnel.clients();
            let (address, backend) = match self.ends.pair.caller {
                Peer::Rust => (gateway, None),
                peer => (self.ends.address_of(peer, "relay", 0), Some(gateway)),
            };
            let connected = plain::endpoint(address).connect().await;
            let channel = connected.expect("it accepts a connection");
            let channel = channel.map_request(move |mut request: http::Request<Body>| {
                let headers = request.headers_mut();
                headers.insert(KEY_METADATA, HeaderValue::from_static(KEY));
                // A bridge looks there. The gateway enforces the other one.
                if let Some(timeout) = headers.get("grpc-timeout").cloned() {
                    headers.insert(TIMEOUT_KEY, timeout);
                }
                if let Some(backend) = backend {
                    let backend = HeaderValue::from_str(&backend.to_string());
                    headers.insert(
                        BACKEND_KEY,
                        backend.expect("an address is legal in a header"),
                    );
                }
                request
            });
            self.ends.channel(channel, None)
        }
        .boxed()
    }
}

/// A server of forward tunnels, behind a link.
struct Forward {
    ends: Ends,
    link: FaultProxy,
    _server: Option<TcpServer>,
}

impl Forward {
    async fn start(ends: Ends) -> Self {
        let (address, server) = match &ends.handler {
            Handler::Rust(routes) => {
                let handler = TunnelServiceHandler::builder()
                    .config(ends.config.clone())
                    .add_routes(routes.clone())
                    .build();
                let routes = Routes::new(handler.service());
                let server = TcpServer::start(server_for_tunnels(Server::builder()), routes).await;
                (server.address(), Some(server))
            }
            Handler::Bridge(peer, _) => (ends.address_of(*peer, "serve-forward", 0), None),
        };
        Self {
            ends,
            link: FaultProxy::to(address).await,
            _server: server,
        }
    }
}

impl Host for Forward {
    fn connect(&self) -> BoxFuture<'_, TestChannel> {
        async {
            if self.ends.pair.caller != Peer::Rust {
                let bridge = self
                    .ends
                    .address_of(self.ends.pair.caller, "call-forward", 0);
                let tunnel = format!("{} {}", self.link.address(), Ends::name());
                return self.ends.through(bridge, Some(&tunnel)).await;
            }
            let connected = endpoint_for_tunnels(self.link.endpoint()).connect().await;
            let tunnel = ForwardTunnel::new(connected.expect("the handler accepts a connection"))
                .config(self.ends.config.clone())
                .open()
                .await
                .expect("the handler accepts a tunnel");
            self.ends.channel(TestChannel::new(tunnel), None)
        }
        .boxed()
    }

    fn kill(&self) {
        cut(&self.link);
    }
}

/// A gateway, behind a link through which handlers open reverse tunnels.
struct Reverse {
    ends: Ends,
    link: FaultProxy,
    gateway: Option<(TunnelServiceHandler, TcpServer)>,
    devices: tokio::sync::Mutex<JoinSet<()>>,
}

impl Reverse {
    async fn start(ends: Ends) -> Self {
        let (address, gateway) = match ends.pair.caller {
            Peer::Rust => {
                let key =
                    |opening: &Opening| opening.metadata_str(TUNNEL_KEY).map(AffinityKey::from);
                let handler = TunnelServiceHandler::builder()
                    .config(ends.config.clone())
                    .affinity_key(key)
                    .build();
                let routes = Routes::new(handler.service());
                let server = TcpServer::start(server_for_tunnels(Server::builder()), routes).await;
                (server.address(), Some((handler, server)))
            }
            peer => (ends.address_of(peer, "call-reverse", 1), None),
        };
        Self {
            ends,
            link: FaultProxy::to(address).await,
            gateway,
            devices: tokio::sync::Mutex::default(),
        }
    }

    /// Makes the handler open a reverse tunnel with a name.
    async fn dial(&self, name: &str) {
        match &self.ends.handler {
            Handler::Rust(routes) => {
                let mut metadata = MetadataMap::new();
                metadata.insert(TUNNEL_KEY, name.parse().expect("a legal value"));
                let device = ReverseTunnelServer::builder(self.link.endpoint())
                    .add_routes(routes.clone())
                    .metadata(metadata)
                    .config(self.ends.config.clone())
                    .build();
                self.devices.lock().await.spawn(async move {
                    // Its end is what the case sees.
                    let _ = device.serve().await;
                });
            }
            Handler::Bridge(peer, _) => {
                let bridges = &self.ends.bridges;
                let bridge = bridges.get(*peer, "serve-reverse", self.ends.pair.revision);
                let told = bridge
                    .and_then(|bridge| bridge.tell(&format!("{} {name}", self.link.address())));
                told.expect("the bridge runs");
            }
        }
    }
}

impl Host for Reverse {
    fn connect(&self) -> BoxFuture<'_, TestChannel> {
        async {
            let name = Ends::name();
            self.dial(&name).await;
            let Some((handler, _)) = &self.gateway else {
                let bridge = self
                    .ends
                    .address_of(self.ends.pair.caller, "call-reverse", 0);
                return self.ends.through(bridge, Some(&name)).await;
            };
            let channel = handler.key_as_channel(name);
            let opened = channel.wait_for_ready(OPEN_TIMEOUT).await;
            opened.expect("the handler opens a tunnel");
            let tunnel = channel.tunnels()[0].channel().expect("a reverse tunnel");
            self.ends.channel(TestChannel::new(tunnel), None)
        }
        .boxed()
    }

    fn kill(&self) {
        cut(&self.link);
    }
}
