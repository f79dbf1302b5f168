//! Paths: the transports between a client and the service under test.

mod channel;
mod device;
mod forward;
mod nested;
mod oracle;
mod proxied;
mod reverse;
mod settings;
mod tcp;

pub use channel::TestChannel;
pub use forward::ForwardPath;
pub use nested::NestedPath;
pub use oracle::OraclePath;
pub use proxied::ProxiedPath;
pub use reverse::ReversePath;
pub use settings::config;
pub use tcp::{PlainTcpPath, TcpServer};

use futures::future::BoxFuture;
use tonic::service::Routes;

/// A transport of calls, such as plain TCP or a forward tunnel. It has no state.
pub trait Path: Send + Sync {
    /// Starts a new server with this offer.
    fn host(&self, offer: Offer) -> BoxFuture<'_, Box<dyn Host>>;
}

/// A running server with one offer. Dropping it stops everything that it started.
pub trait Host: Send + Sync {
    /// Makes a new channel to the server, with a new connection or tunnel.
    fn connect(&self) -> BoxFuture<'_, TestChannel>;

    /// Kills the server, as a crash does: its connections break without a graceful end.
    ///
    /// Called only for paths that do not lack `loss`.
    fn kill(&self) {
        unimplemented!("this path has no far end that could be killed");
    }
}

/// The services of a server, and their limits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Offer {
    /// The services.
    pub routes: Routes,
    /// The largest message of the case, if it exceeds tonic's default of 4 MiB. A path raises its
    /// own limit to this size.
    pub max_message_size: Option<usize>,
}

impl Offer {
    /// An offer of these services with the default limits.
    pub fn new(routes: Routes) -> Self {
        Self {
            routes,
            max_message_size: None,
        }
    }

    /// Raises the message limit to `limit` bytes.
    pub fn with_max_message_size(mut self, limit: usize) -> Self {
        self.max_message_size = Some(limit);
        self
    }
}
