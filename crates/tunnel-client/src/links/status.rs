//! The states of links.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::Code;
use tunnel_core::{ConnectionError, EndReason, Report};
use tunnel_tonic::outer::RETRY_PUSHBACK;
use tunnel_tonic::{TunnelError, TunnelInfo};

/// The status of a link, which keeps one tunnel to one gateway up.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    /// Unique among the links of a server or channel.
    pub(crate) number: usize,
    /// Whether the gateway was removed, so that the link is about to end.
    pub(crate) removed: bool,
    pub(crate) gateway: Arc<str>,
    pub(crate) index: usize,
    pub(crate) state: LinkState,
    pub(crate) fallback_tunnel: Option<FallbackTunnel>,
    pub(crate) attempts: u64,
    pub(crate) last_down_reason: Option<DownReason>,
}

impl LinkStatus {
    pub(crate) fn new(number: usize, gateway: Arc<str>, index: usize) -> Self {
        Self {
            number,
            removed: false,
            gateway,
            index,
            state: LinkState::Connecting,
            fallback_tunnel: None,
            attempts: 0,
            last_down_reason: None,
        }
    }

    /// The name of the link's gateway.
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// The number of the link among those to the same gateway, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The state of the link to its own gateway.
    pub fn state(&self) -> &LinkState {
        &self.state
    }

    /// The fallback tunnel to another gateway while the own gateway drains, if there is one.
    pub fn fallback_tunnel(&self) -> Option<&FallbackTunnel> {
        self.fallback_tunnel.as_ref()
    }

    /// Whether calls can arrive by this link, from its own gateway or through a fallback tunnel.
    pub fn is_connected(&self) -> bool {
        matches!(self.state, LinkState::Connected(_)) || self.fallback_tunnel.is_some()
    }

    /// The name that the gateway gave itself, if the link is [connected](LinkState::Connected) and the gateway has one:
    /// the [instance](TunnelInfo::instance) of the tunnel.
    pub fn instance(&self) -> Option<&str> {
        match &self.state {
            LinkState::Connected(tunnel) => tunnel.instance(),
            _ => None,
        }
    }

    /// The number of attempts to open a tunnel.
    pub fn attempts(&self) -> u64 {
        self.attempts
    }

    /// Why the last attempt failed, or the last tunnel ended. It is kept when the link is connected
    /// again.
    pub fn last_down_reason(&self) -> Option<&DownReason> {
        self.last_down_reason.as_ref()
    }
}

/// A tunnel to another gateway, while the link's own gateway drains.
#[derive(Clone, Debug)]
pub struct FallbackTunnel {
    pub(crate) gateway: Arc<str>,
    pub(crate) tunnel: TunnelInfo,
}

impl FallbackTunnel {
    /// The name of the other gateway.
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// The tunnel.
    pub fn tunnel(&self) -> &TunnelInfo {
        &self.tunnel
    }
}

/// The state of a link; [`ReverseTunnelServer`](crate::ReverseTunnelServer) has a diagram of the
/// transitions.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LinkState {
    /// A tunnel is being opened.
    Connecting,
    /// A tunnel takes calls: a forward tunnel has the far end's settings, and the gateway of a reverse tunnel
    /// routes calls to it. (Gateways of other implementations do not say when they do; there, it has accepted the
    /// tunnel.) A new tunnel id means that, behind a load balancer, another backend may have accepted it.
    Connected(TunnelInfo),
    /// There is no tunnel. The next attempt is made later.
    #[non_exhaustive]
    BackingOff {
        /// The latest time of the next attempt. Calls that wait for a forward tunnel bring it forward.
        until: Instant,
        /// Whether it was a lasting refusal, which an operator may have to resolve.
        refused: bool,
    },
    /// The tunnel takes no new calls, and calls in flight go on. Either its gateway drains it and the
    /// replacement is being opened, or this end drains it.
    Draining,
    /// The link has stopped for good.
    Stopped(StopReason),
}

/// Why links were stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// By [`drain`](crate::LinksHandle::drain).
    Drained,
    /// By [`close`](crate::LinksHandle::close).
    Closed,
    /// The server, the future that it ran in, or the last clone of the channel was dropped.
    Dropped,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drained => "the tunnels were drained",
            Self::Closed => "the tunnels were closed",
            Self::Dropped => "the server or channel was dropped",
        })
    }
}

/// The error of waiting for a tunnel of links that were stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no tunnel will be opened: {reason}")]
pub struct LinksStopped {
    pub(crate) reason: StopReason,
}

impl LinksStopped {
    /// Why the links were stopped.
    pub fn reason(&self) -> StopReason {
        self.reason
    }
}

/// Why a link has, or last had, no tunnel. Its text is one line with all sources.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DownReason {
    /// A tunnel could not be opened.
    NotOpened(TunnelError),
    /// A tunnel has ended or is draining.
    Ended(EndReason),
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOpened(error) => Report(error).fmt(f),
            Self::Ended(reason) => Report(reason).fmt(f),
        }
    }
}

impl DownReason {
    /// Whether this is a lasting refusal: UNAUTHENTICATED, PERMISSION_DENIED, INVALID_ARGUMENT or
    /// UNIMPLEMENTED, as a gRPC status of the gateway, at opening or later, or of the credentials
    /// hook. The answer of something else than a gRPC server, such as a proxy's 404, is not.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::NotOpened(TunnelError::Refused(status) | TunnelError::Credentials(status)) => {
                will_not_change(status.code())
            }
            Self::NotOpened(TunnelError::Ended(reason)) | Self::Ended(reason) => kicked_out(reason),
            Self::NotOpened(_) => false,
        }
    }
}

/// When to try again, as a refusal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushback {
    /// Not before this has passed.
    AtLeast(Duration),
    /// Not soon.
    NotSoon,
}

impl DownReason {
    /// When to try again, if the refusal says so.
    pub(crate) fn pushback(&self) -> Option<Pushback> {
        let Self::NotOpened(TunnelError::Refused(status)) = self else {
            return None;
        };
        let value = status.metadata().get(RETRY_PUSHBACK)?;
        let millis = value.to_str().ok().and_then(|text| text.parse().ok());
        Some(millis.map_or(Pushback::NotSoon, |millis| {
            Pushback::AtLeast(Duration::from_millis(millis))
        }))
    }
}

/// Whether the gateway ended the tunnel with a lasting refusal.
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
    fn four_codes_are_lasting_refusals_from_any_source_at_any_time() {
        for code in all_codes() {
            let wanted = lasting().contains(&code);
            let wire = tunnel_core::Code::from_wire(code as i32);
            let kicked = ConnectionError::EndedByPeer(tunnel_core::Status::new(wire, ""));
            for error in [
                DownReason::NotOpened(TunnelError::Refused(Status::new(code, ""))),
                DownReason::NotOpened(TunnelError::Credentials(Status::new(code, ""))),
                DownReason::Ended(EndReason::Error(kicked.clone())),
                DownReason::NotOpened(TunnelError::Ended(EndReason::Error(kicked))),
            ] {
                assert_eq!(error.is_refusal(), wanted, "{error:?}");
            }
            // An error of the channel says nothing about the gateway.
            let channel = TunnelError::Channel(Status::new(code, ""));
            assert!(!DownReason::NotOpened(channel).is_refusal());
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
            assert!(!DownReason::Ended(reason).is_refusal());
        }
    }
}
