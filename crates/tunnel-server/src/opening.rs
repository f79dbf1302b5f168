//! The request to open a tunnel, before the tunnel exists.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use http::Extensions;
use tonic::Request;
use tonic::metadata::MetadataMap;
use tunnel_tonic::{AffinityKey, Direction, TunnelInfo};

/// The request to open a tunnel, for the hooks that give it a key and admit it. Cheap to clone.
///
/// ```
/// # use tunnel_server::{AffinityKey, Opening, TunnelServiceHandler};
/// # use tonic::Status;
/// let handler = TunnelServiceHandler::builder()
///     .affinity_key(|opening: &Opening| opening.metadata_str("device-id").map(AffinityKey::from))
///     .admit(|opening: Opening| async move {
///         match opening.key() {
///             Some(_) => Ok(()),
///             None => Err(Status::invalid_argument("device-id is missing")),
///         }
///     })
///     .build();
/// # let _ = handler;
/// ```
#[derive(Clone)]
pub struct Opening {
    request: Arc<Request<()>>,
    direction: Direction,
    key: Option<AffinityKey>,
}

impl Opening {
    pub(crate) fn new(direction: Direction, request: Request<()>) -> Self {
        Self {
            request: Arc::new(request),
            direction,
            key: None,
        }
    }

    pub(crate) fn set_key(&mut self, key: Option<AffinityKey>) {
        self.key = key;
    }

    /// The direction of the tunnel's calls.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The tunnel's key, once [`affinity_key`](crate::TunnelServiceHandlerBuilder::affinity_key)
    /// has given it one.
    pub fn key(&self) -> Option<&AffinityKey> {
        self.key.as_ref()
    }

    /// The metadata of the request.
    pub fn metadata(&self) -> &MetadataMap {
        self.request.metadata()
    }

    /// A text value of the metadata; `None` if it is missing or not ASCII.
    pub fn metadata_str(&self, key: &str) -> Option<&str> {
        self.metadata().get(key)?.to_str().ok()
    }

    /// The address of the peer, if the server knows it.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.request.remote_addr()
    }

    /// The extensions of the request, from the server, its layers and its interceptors.
    pub fn extensions(&self) -> &Extensions {
        self.request.extensions()
    }

    /// The request as tonic's type. With one of tonic's TLS features, its `peer_certs()` are the client's
    /// verified certificates.
    pub fn request(&self) -> &Request<()> {
        &self.request
    }

    /// The extensions, for the tunnel's calls. Copied only where a hook has kept the opening.
    pub(crate) fn into_extensions(self) -> Extensions {
        match Arc::try_unwrap(self.request) {
            Ok(request) => request.into_parts().1,
            Err(shared) => shared.extensions().clone(),
        }
    }

    /// The properties of the tunnel.
    pub(crate) fn to_info(&self) -> TunnelInfo {
        TunnelInfo::new(
            self.direction,
            self.metadata().clone(),
            self.peer_addr(),
            self.key.clone(),
        )
    }
}

/// Leaves out metadata, which may contain credentials.
impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening")
            .field("direction", &self.direction)
            .field("key", &self.key)
            .field("peer", &self.peer_addr())
            .finish_non_exhaustive()
    }
}
