//! What puts a channel between a client and the service under test.

mod channel;
mod device;
mod forward;
mod nested;
mod oracle;
mod reverse;
mod settings;
mod tcp;

pub use channel::TestChannel;
pub use forward::ForwardPath;
pub use nested::NestedPath;
pub use oracle::OraclePath;
pub use reverse::ReversePath;
pub use tcp::{PlainTcpPath, TcpServer};

use futures::future::BoxFuture;
use tonic::service::Routes;

/// A way for calls to travel. One implementation for each path; no state.
pub trait Path: Send + Sync {
    /// Puts the offer behind a new far end of its own.
    fn host(&self, offer: Offer) -> BoxFuture<'_, Box<dyn Host>>;
}

/// A far end that serves one offer, for as long as it is kept. Dropping it takes
/// everything down that it started.
pub trait Host: Send + Sync {
    /// Makes a new channel to the far end: another connection, another tunnel.
    fn connect(&self) -> BoxFuture<'_, TestChannel>;

    /// Ends the far end as a crash would: no goodbye, its connections break.
    ///
    /// Only asked of paths that do not lack `loss`.
    fn kill(&self) {
        unimplemented!("this path has no far end that could be killed");
    }
}

/// What a far end is to serve, and under which limits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Offer {
    /// The services.
    pub routes: Routes,
    /// The largest message a case sends, where that is more than tonic's
    /// default of 4 MiB. A path with a limit of its own raises it to this.
    pub max_message_size: Option<usize>,
}

impl Offer {
    /// These services, under the default limits.
    pub fn new(routes: Routes) -> Self {
        Self {
            routes,
            max_message_size: None,
        }
    }

    /// Announces messages of up to `limit` bytes.
    pub fn with_max_message_size(mut self, limit: usize) -> Self {
        self.max_message_size = Some(limit);
        self
    }
}
