//! The tonic service that accepts tunnels.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::server::NamedService;
use tower_service::Service;
use tunnel_core::{Config, Stats};
use tunnel_tonic::outer::{
    OPEN_REVERSE_TUNNEL_PATH, OPEN_TUNNEL_PATH, SERVICE_NAME, accepted_encoding, common_offer,
    is_grpc, peer_encoding, put_encodings, put_instance, put_key, put_offer, put_ready,
    put_return_spread,
};
use tunnel_tonic::{
    AffinityKey, CallService, Direction, NetworkRole, Tunnel, TunnelChannel, TunnelEvents, TunnelId,
};

use crate::age;
use crate::origin::Origin;
use crate::policy::{Policy, Refusal};
use crate::registry::Registry;
use crate::returns;
use crate::{AcceptedTunnel, Opening, ReverseChannel};

/// Accepts tunnels and serves their calls. Cheap to clone; clones are the same handler.
///
/// [`service`](Self::service) is the service to add to a tonic server.
/// [`as_channel`](Self::as_channel) and [`key_as_channel`](Self::key_as_channel) call through
/// reverse tunnels, and [`tunnels`](Self::tunnels) are the tunnels that are open.
#[derive(Clone, Debug)]
pub struct TunnelServiceHandler {
    calls: CallService,
    config: Config,
    send: Option<CompressionEncoding>,
    registry: Arc<Registry>,
    instance: Arc<Mutex<Option<Instance>>>,
}

/// What the handler calls itself.
#[derive(Clone, Debug)]
struct Instance {
    name: Arc<str>,
    /// How many there are.
    instances: usize,
}

impl TunnelServiceHandler {
    pub(crate) fn new(
        calls: CallService,
        config: Config,
        send: Option<CompressionEncoding>,
        policy: Policy,
    ) -> Self {
        Self {
            calls,
            config,
            send,
            registry: Registry::new(policy),
            instance: Arc::default(),
        }
    }

    /// The service to add to a tonic server, or to several servers.
    pub fn service(&self) -> TunnelServiceServer {
        TunnelServiceServer {
            handler: self.clone(),
        }
    }

    /// Names this instance of the server among several behind one address, and says how many there are, itself
    /// included. It is told to devices and channels as they open tunnels; it can change at any time, and holds for
    /// tunnels that are opened later. The name must be unique among the instances. Default: none.
    ///
    /// Ends with this library that keep several tunnels to the address up (`tunnels_per_gateway`) then lead them to
    /// different instances. To do so they have one tunnel more for a short time, also with the same key:
    /// [`max_tunnels_per_key`](crate::TunnelServiceHandlerBuilder::max_tunnels_per_key) must leave room for it.
    ///
    /// ```
    /// use tunnel_server::TunnelServiceHandler;
    ///
    /// let handler = TunnelServiceHandler::builder().build();
    /// handler.set_instance("gateway-1", 3);
    /// // Later, when one more was started:
    /// handler.set_instance("gateway-1", 4);
    /// ```
    pub fn set_instance(&self, name: impl Into<String>, instances: usize) {
        let name = name.into().into();
        *self.instance() = Some(Instance { name, instances });
    }

    fn instance(&self) -> MutexGuard<'_, Option<Instance>> {
        let instance = self.instance.lock();
        instance.unwrap_or_else(PoisonError::into_inner)
    }

    /// A channel over all reverse tunnels.
    pub fn as_channel(&self) -> ReverseChannel {
        let pool = self.registry.all.clone();
        ReverseChannel::new(self.registry.clone(), pool)
    }

    /// A channel over the reverse tunnels of a key, including those that open later.
    pub fn key_as_channel(&self, key: impl Into<AffinityKey>) -> ReverseChannel {
        let pool = self.registry.key_pool(&key.into());
        ReverseChannel::new(self.registry.clone(), pool)
    }

    /// The reverse tunnels that take calls, each as a channel: to call every one of them.
    pub fn all_reverse_tunnels(&self) -> Vec<TunnelChannel> {
        self.registry.all.tunnels.tunnels()
    }

    /// The tunnels of both directions, open or being opened, oldest first.
    pub fn tunnels(&self) -> Vec<AcceptedTunnel> {
        self.registry.tunnels()
    }

    /// The tunnel with this id.
    pub fn tunnel(&self, id: TunnelId) -> Option<AcceptedTunnel> {
        self.registry.tunnel(id)
    }

    /// The tunnels of one key, of both directions, oldest first.
    pub fn tunnels_of_key(&self, key: impl Into<AffinityKey>) -> Vec<AcceptedTunnel> {
        self.registry.tunnels_of(&key.into())
    }

    /// Ends all tunnels of a key now with a status, as [`AcceptedTunnel::close_with`] does, and refuses those
    /// that are being admitted. Returns their number.
    ///
    /// To refuse tunnels that are opened later, use
    /// [`admit`](crate::TunnelServiceHandlerBuilder::admit). Revoke the credential first, then call this: no
    /// tunnel of the key is left, whatever `admit` has seen.
    pub fn close_key_with(&self, key: impl Into<AffinityKey>, status: Status) -> usize {
        let key = key.into();
        // In this order: a tunnel that is listed meanwhile is found in one of the two.
        let opening = self.registry.openings.close(&key, &status);
        let tunnels = self.tunnels_of_key(key);
        for tunnel in &tunnels {
            tunnel.close_with(status.clone());
        }
        opening + tunnels.len()
    }

    /// Drains all tunnels of a key, as [`AcceptedTunnel::drain`] does. Returns their number when they
    /// are closed.
    pub async fn drain_key(&self, key: impl Into<AffinityKey>, timeout: Duration) -> usize {
        let tunnels = self.tunnels_of_key(key);
        for tunnel in &tunnels {
            tunnel.begin_drain(timeout);
        }
        for tunnel in &tunnels {
            tunnel.closed().await;
        }
        tunnels.len()
    }

    /// A stream of the tunnels that open, close or are refused from now on. Subscribe before reading
    /// [`tunnels`](Self::tunnels), to miss nothing in between.
    pub fn events(&self) -> TunnelEvents {
        self.registry.reporter.subscribe()
    }

    /// The number of tunnels that are open, now and after each change.
    pub fn open_tunnels(&self) -> watch::Receiver<usize> {
        self.registry.reporter.open()
    }

    /// The counters of the tunnels that are open.
    pub fn stats(&self) -> Vec<(TunnelId, Stats)> {
        let tunnels = self.registry.tunnels();
        tunnels.iter().map(|t| (t.id(), t.stats())).collect()
    }

    /// The number of calls that have state here. Zero when all have ended.
    #[doc(hidden)]
    pub fn kept_calls(&self) -> usize {
        let tunnels = self.registry.tunnels();
        tunnels.iter().map(|t| t.tunnel().kept_calls()).sum()
    }

    /// The number of keys that have state here. Zero when no tunnel and no channel has one.
    #[doc(hidden)]
    pub fn kept_keys(&self) -> usize {
        self.registry.kept_keys()
    }

    /// Sets where devices can open their next tunnels when this handler [retires](Self::retire) or
    /// [drains](Self::drain) all tunnels: the addresses of other servers for the same callers, with scheme and
    /// authority. Replaces those set before. Default: none.
    ///
    /// A device of this library that follows siblings (`Gateway::follow_siblings` of `tunnel-client`) opens a tunnel
    /// at one of them, chosen at random, before it dials this address again. It reads at most 16, and ignores those
    /// with another scheme than its own gateway. Devices of other implementations are not told.
    ///
    /// ```
    /// # use tunnel_server::TunnelServiceHandler;
    /// # fn example(handler: TunnelServiceHandler) -> Result<(), http::uri::InvalidUri> {
    /// handler.set_siblings(["https://gateway-2.example:443".parse()?]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_siblings(&self, siblings: impl IntoIterator<Item = http::Uri>) {
        let siblings = siblings.into_iter().map(|uri| uri.to_string());
        self.registry.set_siblings(siblings.collect());
    }

    /// Prepares a drain without a gap: refuses new tunnels from now on, and asks the devices of reverse tunnels to
    /// open others, at the [siblings](Self::set_siblings) if there are any. Meanwhile their tunnels take calls as
    /// before. [`drain`](Self::drain) ends them; call it after about `grace`.
    ///
    /// Devices open their next tunnels at random times within half of `grace`, so that they do not arrive at the
    /// siblings together. Forward tunnels go on; they are told with the drain. Devices of other implementations are not
    /// told. [`serve`](Self::serve) does this by itself.
    pub fn retire(&self, grace: Duration) {
        returns::retire(&self.registry, grace);
    }

    /// Drains all tunnels, for a shutdown: new tunnels and new calls are refused with UNAVAILABLE, and
    /// calls in flight are ended after `timeout`. Returns when the last tunnel is closed.
    ///
    /// The drain goes on when the future is dropped. A second drain can end the calls earlier; zero ends
    /// them now.
    ///
    /// Reverse tunnels leave their pools at once, and their devices get a drain notice, with the
    /// [siblings](Self::set_siblings). Without siblings they are told to return within the
    /// [spread](crate::TunnelServiceHandlerBuilder::return_spread), if one is set. Calls that wait
    /// for a tunnel fail.
    ///
    /// To stop a server use [`serve`](Self::serve), which also closes the connections.
    pub async fn drain(&self, timeout: Duration) {
        let farewell = returns::farewell(&self.registry);
        self.registry.drain(timeout, farewell).await;
    }

    /// Whether siblings are set.
    pub(crate) fn has_siblings(&self) -> bool {
        !self.registry.siblings().is_empty()
    }

    /// Refuses new tunnels from now on; open ones go on.
    pub(crate) fn refuse_openings(&self) {
        self.registry.refuse_openings();
    }

    /// Whether the handler was drained, so that it takes no tunnels and has none.
    pub(crate) fn is_drained(&self) -> bool {
        self.registry.is_draining() && *self.open_tunnels().borrow() == 0
    }

    async fn open(self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let direction = match request.uri().path() {
            OPEN_TUNNEL_PATH => Direction::Forward,
            OPEN_REVERSE_TUNNEL_PATH => Direction::Reverse,
            _ => return Err(Status::unimplemented("")),
        };
        let offer = common_offer(&self.config, request.headers());
        let theirs = peer_encoding(request.headers());
        let ours = accepted_encoding(self.send, request.headers());
        let request = tonic::Request::from_http(request);
        let (metadata, extensions, body) = request.into_parts();
        let request = tonic::Request::from_parts(metadata, extensions, ());
        let mut opening = Opening::new(direction, request);
        let admitted = match direction {
            Direction::Reverse if !self.registry.policy.reverse => Err(Refusal::new(
                "reverse_tunnels",
                Status::unimplemented("this server accepts no reverse tunnels"),
            )),
            _ => self.registry.consider(&mut opening).await,
        };
        let theirs = theirs.map_err(|status| Refusal::new("encoding", status));
        let info = opening.to_info();
        let refused = |refusal: Refusal| {
            self.registry.refused(info.clone(), &refusal);
            refusal.status
        };
        let pending = admitted.map_err(refused)?;
        let theirs = theirs.map_err(refused)?;
        let origin = Origin::of(opening.request());
        let service = match direction {
            Direction::Forward => Some((self.calls.clone(), opening.into_extensions())),
            Direction::Reverse => None,
        };
        let (tunnel, mut outbound, mut inbound) =
            Tunnel::new(NetworkRole::Server, self.config.clone(), info.clone());
        outbound.compress(ours);
        inbound.decompress(theirs);
        tunnel.share_memory(&self.registry.memory);
        if self.registry.policy.metrics_by_key {
            tunnel.label_metrics_by_key();
        }
        if let Some(inject) = &self.registry.policy.inject {
            tunnel.inject_trace(inject.clone());
        }
        let accepted = AcceptedTunnel::new(tunnel);
        let entry = self.registry.insert(&accepted, origin, pending);
        let entry = entry.map_err(refused)?;
        let mut response = http::Response::new(Body::new(outbound));
        put_offer(&self.config, response.headers_mut());
        if let Some(key) = accepted.key() {
            put_key(key, response.headers_mut());
        }
        if let Some(Instance { name, instances }) = self.instance().clone() {
            put_instance(&name, instances, response.headers_mut());
        }
        if let Some(spread) = self.registry.return_spread() {
            put_return_spread(spread, response.headers_mut());
        }
        inbound.start(offer, body, service, entry);
        if self.registry.policy.return_spread.is_some() {
            returns::renew(&self.registry);
        }
        let Policy {
            max_tunnel_age,
            drain_timeout,
            ..
        } = self.registry.policy;
        if let Some(max_age) = max_tunnel_age {
            let registry = self.registry.clone();
            tokio::spawn(age::watch(max_age, drain_timeout, registry, accepted));
        }
        put_encodings(ours, response.headers_mut());
        if direction == Direction::Reverse && offer.ready {
            put_ready(response.headers_mut());
        }
        Ok(response)
    }
}

/// The tonic service `grpctunnel.v1.TunnelService`, to be added to a server; from
/// [`TunnelServiceHandler::service`]. Answers 415 to requests that are not gRPC.
#[derive(Clone, Debug)]
pub struct TunnelServiceServer {
    handler: TunnelServiceHandler,
}

impl NamedService for TunnelServiceServer {
    const NAME: &'static str = SERVICE_NAME;
}

impl<B> Service<http::Request<B>> for TunnelServiceServer
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if !is_grpc(request.headers()) {
            let mut response = http::Response::new(Body::empty());
            *response.status_mut() = http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Box::pin(std::future::ready(Ok(response)));
        }
        let opened = self.handler.clone().open(request.map(Body::new));
        Box::pin(async { Ok(opened.await.unwrap_or_else(Status::into_http)) })
    }
}
