//! The properties of a tunnel.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use tonic::metadata::MetadataMap;
use tunnel_core::{Side, TUNNEL_ID_HEADER};

/// The direction of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The side that dialled makes the calls.
    Forward,
    /// The side that dialled serves the calls.
    Reverse,
}

impl Direction {
    /// The name in logs and labels.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Reverse => "reverse",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which end of the outer call this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkRole {
    /// Dialled: sends the request body, which ends without trailers.
    Client,
    /// Accepted: sends the response body, which ends with a status.
    Server,
}

impl NetworkRole {
    /// The name in logs and labels.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }

    /// Which side this end is in a tunnel of a direction.
    pub(crate) fn side(self, direction: Direction) -> Side {
        match (direction, self) {
            (Direction::Forward, Self::Client) | (Direction::Reverse, Self::Server) => Side::Caller,
            (Direction::Forward, Self::Server) | (Direction::Reverse, Self::Client) => {
                Side::Handler
            }
        }
    }
}

/// The key by which tunnels are found: the name of a device, a tenant, a session. Any text, compared
/// byte by byte. Cheap to clone.
///
/// ```
/// use tunnel_tonic::AffinityKey;
/// assert_eq!(AffinityKey::from("device-17").as_str(), "device-17");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AffinityKey(Arc<str>);

impl AffinityKey {
    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for AffinityKey {
    fn from(key: &str) -> Self {
        Self(key.into())
    }
}

impl From<String> for AffinityKey {
    fn from(key: String) -> Self {
        Self(key.into())
    }
}

impl From<&AffinityKey> for AffinityKey {
    fn from(key: &AffinityKey) -> Self {
        key.clone()
    }
}

impl fmt::Display for AffinityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of a tunnel: unique within this process, and never used again.
///
/// The peer has its own id for the same tunnel. [`TunnelInfo::shared_id`] is the id that joins the logs of
/// both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TunnelId(u64);

impl TunnelId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The id as a number.
    pub fn value(self) -> u64 {
        self.0
    }
}

impl fmt::Display for TunnelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id that both ends log: that of the opening's metadata, or a new one.
fn shared_id(opening: &MetadataMap) -> Box<str> {
    let sent = opening
        .get(TUNNEL_ID_HEADER)
        .and_then(|id| id.to_str().ok());
    let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    match sent {
        Some(id) if id.len() == 16 && id.bytes().all(is_digit) => id.into(),
        _ => format!("{:016x}", fastrand::u64(..)).into(),
    }
}

/// The properties of a tunnel. Cheap to clone.
///
/// It is in the extensions of every request that is served through a tunnel:
///
/// ```
/// use tunnel_tonic::TunnelInfo;
///
/// fn tenant(request: &tonic::Request<()>) -> Option<&str> {
///     let tunnel = request.extensions().get::<TunnelInfo>()?;
///     tunnel.metadata().get("tenant")?.to_str().ok()
/// }
/// ```
#[derive(Clone)]
pub struct TunnelInfo {
    inner: Arc<Inner>,
}

struct Inner {
    id: TunnelId,
    shared_id: Box<str>,
    direction: Direction,
    metadata: MetadataMap,
    peer: OnceLock<SocketAddr>,
    gateway: Option<Arc<str>>,
    key: OnceLock<AffinityKey>,
    instance: OnceLock<Arc<str>>,
    opened_at: SystemTime,
}

impl TunnelInfo {
    /// The properties of a new tunnel.
    pub fn new(
        direction: Direction,
        metadata: MetadataMap,
        peer: Option<SocketAddr>,
        key: Option<AffinityKey>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                id: TunnelId::next(),
                shared_id: shared_id(&metadata),
                direction,
                metadata,
                peer: once(peer),
                gateway: None,
                key: once(key),
                instance: OnceLock::new(),
                opened_at: SystemTime::now(),
            }),
        }
    }

    /// The properties with the name of the gateway that this end dials.
    pub fn with_gateway(mut self, name: Arc<str>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.gateway = Some(name);
        }
        self
    }

    /// Adds what is known only when the far end has accepted the tunnel. What is known already does not
    /// change.
    pub fn accepted(
        &self,
        peer: Option<SocketAddr>,
        key: Option<AffinityKey>,
        instance: Option<Arc<str>>,
    ) {
        // An error is a value that was known already.
        let _ = peer.map(|peer| self.inner.peer.set(peer));
        let _ = key.map(|key| self.inner.key.set(key));
        let _ = instance.map(|name| self.inner.instance.set(name));
    }

    /// The tunnel's id.
    pub fn id(&self) -> TunnelId {
        self.inner.id
    }

    /// The id that both ends log for the tunnel, 16 hexadecimal digits.
    ///
    /// The end that dialled makes it at random and sends it in the header `grpctunnel-id`. It is the peer's
    /// claim, so it may be that of another tunnel; [`id`](Self::id) is unique within this process.
    pub fn shared_id(&self) -> &str {
        &self.inner.shared_id
    }

    /// The direction of its calls.
    pub fn direction(&self) -> Direction {
        self.inner.direction
    }

    /// The metadata that the tunnel was opened with.
    pub fn metadata(&self) -> &MetadataMap {
        &self.inner.metadata
    }

    /// The address of the peer, which may be that of a proxy. Known to the end that accepted the connection,
    /// and to the end that dialled it if `tunnel-client` made it from an endpoint.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.inner.peer.get().copied()
    }

    /// The name of the gateway, at the end that dialled one: of a
    /// `ReverseTunnelServer` or a `ForwardChannel`.
    pub fn gateway(&self) -> Option<&str> {
        self.inner.gateway.as_deref()
    }

    /// The name that the gateway gave itself, at the end that dialled it, if the gateway runs this library and has a
    /// name: `set_instance` of a `TunnelServiceHandler`. Behind one address there may be several.
    pub fn instance(&self) -> Option<&str> {
        self.inner.instance.get().map(|name| &**name)
    }

    /// The key of the tunnel, if the end that accepted it has given it one and runs this library, which tells it
    /// to the other end.
    pub fn key(&self) -> Option<&AffinityKey> {
        self.inner.key.get()
    }

    /// When the tunnel was opened.
    pub fn opened_at(&self) -> SystemTime {
        self.inner.opened_at
    }
}

fn once<T>(known: Option<T>) -> OnceLock<T> {
    known.map_or_else(OnceLock::new, OnceLock::from)
}

/// Leaves out metadata, which may contain credentials.
impl fmt::Debug for TunnelInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelInfo")
            .field("id", &self.inner.id.0)
            .field("shared_id", &self.inner.shared_id)
            .field("direction", &self.inner.direction)
            .field("key", &self.key())
            .field("peer", &self.peer_addr())
            .finish_non_exhaustive()
    }
}
