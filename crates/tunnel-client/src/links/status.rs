//! How links stand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::Code;
use tunnel_core::{ConnectionError, EndReason};
use tunnel_tonic::outer::RETRY_PUSHBACK;
use tunnel_tonic::{TunnelError, TunnelInfo};

/// One of the tunnels that are kept up: its place, whether or not there is a tunnel in it.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    pub(crate) gateway: Arc<str>,
    pub(crate) index: usize,
    pub(crate) state: LinkState,
    pub(crate) stand_in: Option<StandIn>,
    pub(crate) attempts: u64,
    pub(crate) last_error: Option<LinkError>,
}

impl LinkStatus {
    pub(crate) fn new(gateway: Arc<str>, index: usize) -> Self {
        Self {
            gateway,
            index,
            state: LinkState::Connecting,
            stand_in: None,
            attempts: 0,
            last_error: None,
        }
    }

    /// The name of the gateway that the link belongs to.
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// Which of the links to this gateway it is, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// How the link to its own gateway stands.
    pub fn state(&self) -> &LinkState {
        &self.state
    }

    /// The tunnel to another gateway that stands in while the own gateway drains, if there is one.
    pub fn stand_in(&self) -> Option<&StandIn> {
        self.stand_in.as_ref()
    }

    /// Whether calls can come by this link, from its own gateway or from the one that stands in.
    pub fn is_connected(&self) -> bool {
        matches!(self.state, LinkState::Connected(_)) || self.stand_in.is_some()
    }

    /// How many attempts to open a tunnel were begun.
    pub fn attempts(&self) -> u64 {
        self.attempts
    }

    /// What the link failed with last: an attempt, or a tunnel. It stays when the link is
    /// connected again.
    pub fn last_error(&self) -> Option<&LinkError> {
        self.last_error.as_ref()
    }
}

/// A tunnel to another gateway than the link's own.
#[derive(Clone, Debug)]
pub struct StandIn {
    pub(crate) gateway: Arc<str>,
    pub(crate) tunnel: TunnelInfo,
}

impl StandIn {
    /// The name of the gateway that it goes to.
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// The tunnel.
    pub fn tunnel(&self) -> &TunnelInfo {
        &self.tunnel
    }
}

/// How a link to a gateway stands; [`ReverseTunnelServer`](crate::ReverseTunnelServer) shows
/// which state follows which.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LinkState {
    /// A tunnel is being opened.
    Connecting,
    /// The gateway has accepted a tunnel, which takes calls. Another tunnel id than before means
    /// that, behind a load balancer, another backend may have accepted it.
    Connected(TunnelInfo),
    /// There is no tunnel; the next attempt comes later.
    BackingOff {
        /// When it comes, at the latest: calls that wait for a forward tunnel bring it forward.
        until: Instant,
        /// Whether the gateway refused with a code that will not change by itself, so that
        /// somebody may have to do something.
        refused: bool,
    },
    /// The tunnel takes no new calls, and those in flight go on: its gateway drains it, and its
    /// replacement is being opened; or this end was told to drain.
    Draining,
    /// There will be no more tunnels.
    Stopped(StopReason),
}

/// Why links were stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StopReason {
    /// It was told to, by [`drain`](crate::LinksHandle::drain).
    #[error("the tunnels were drained")]
    Drained,
    /// It was told to, by [`close`](crate::LinksHandle::close).
    #[error("the tunnels were closed")]
    Closed,
    /// The server was dropped, or the future that it ran in; or the last clone of the channel.
    #[error("the server or channel was dropped")]
    Dropped,
}

/// Why a link has no tunnel, or had none the last time.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// A tunnel could not be opened.
    #[error(transparent)]
    Open(#[from] TunnelError),
    /// A tunnel was open, and has ended or was told to.
    #[error(transparent)]
    Ended(#[from] EndReason),
}

impl LinkError {
    /// Whether this is a refusal that will not change by itself: UNAUTHENTICATED,
    /// PERMISSION_DENIED, INVALID_ARGUMENT or UNIMPLEMENTED, as a gRPC status of the gateway when
    /// the tunnel was opened or later, or from the function for credentials. What something else
    /// than a gRPC server answers, such as a proxy's 404, is none.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Open(TunnelError::Refused(status) | TunnelError::Credentials(status)) => {
                will_not_change(status.code())
            }
            Self::Open(TunnelError::Ended(reason)) | Self::Ended(reason) => kicked_out(reason),
            Self::Open(_) => false,
        }
    }
}

/// What a refusal says of when to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushback {
    /// Not before this has passed.
    AtLeast(Duration),
    /// Not soon.
    NotSoon,
}

impl LinkError {
    /// What the refusal says of when to try again, if anything.
    pub(crate) fn pushback(&self) -> Option<Pushback> {
        let Self::Open(TunnelError::Refused(status)) = self else {
            return None;
        };
        let value = status.metadata().get(RETRY_PUSHBACK)?;
        let millis = value.to_str().ok().and_then(|text| text.parse().ok());
        Some(millis.map_or(Pushback::NotSoon, |millis| {
            Pushback::AtLeast(Duration::from_millis(millis))
        }))
    }
}

fn kicked_out(reason: &EndReason) -> bool {
    match reason {
        EndReason::Error(ConnectionError::EndedByPeer(status)) => {
            will_not_change(Code::from_i32(status.code as i32))
        }
        _ => false,
    }
}

fn will_not_change(code: Code) -> bool {
    matches!(
        code,
        Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::Unimplemented
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Status;

    fn all_codes() -> impl Iterator<Item = Code> {
        (0..=16).map(Code::from_i32)
    }

    fn lasting() -> [Code; 4] {
        [
            Code::Unauthenticated,
            Code::PermissionDenied,
            Code::InvalidArgument,
            Code::Unimplemented,
        ]
    }

    #[test]
    fn four_codes_will_not_change_by_themselves_whoever_says_them_and_when() {
        for code in all_codes() {
            let wanted = lasting().contains(&code);
            let wire = tunnel_core::Code::from_wire(code as i32);
            let kicked = ConnectionError::EndedByPeer(tunnel_core::Status::new(wire, ""));
            for error in [
                LinkError::Open(TunnelError::Refused(Status::new(code, ""))),
                LinkError::Open(TunnelError::Credentials(Status::new(code, ""))),
                LinkError::Ended(EndReason::Error(kicked.clone())),
                LinkError::Open(TunnelError::Ended(EndReason::Error(kicked))),
            ] {
                assert_eq!(error.is_refusal(), wanted, "{error:?}");
            }
            // What the channel says of itself says nothing of the gateway.
            let channel = TunnelError::Channel(Status::new(code, ""));
            assert!(!LinkError::Open(channel).is_refusal());
        }
    }

    #[test]
    fn an_end_without_a_status_is_no_refusal() {
        for reason in [
            EndReason::PeerClosed,
            EndReason::PeerDrained,
            EndReason::Closed,
            EndReason::Error(ConnectionError::TransportLost(
                tunnel_core::TransportCause::Other.into(),
            )),
        ] {
            assert!(!LinkError::Ended(reason).is_refusal());
        }
    }
}
