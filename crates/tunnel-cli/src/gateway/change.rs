//! What happens to devices, for those who watch.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tunnel_server::{AcceptedTunnel, Stats, TunnelInfo};

use super::deny::Denial;

/// Something that has happened to a key.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) at: SystemTime,
    /// Empty for a tunnel without a key.
    pub(crate) key: Arc<str>,
    pub(crate) what: What,
}

/// What has happened.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Opened(AcceptedTunnel),
    Closed {
        info: TunnelInfo,
        reason: String,
        stats: Box<Stats>,
    },
    Refused {
        peer: Option<SocketAddr>,
        reason: String,
    },
    Denied(Denial),
    Allowed,
}
