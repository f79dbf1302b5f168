//! Keepalive: HTTP/2 pings, servers that limit them, and heartbeats.

use std::time::Duration;

use tonic::transport::Endpoint;
use tunnel_core::{Config, EndReason, TransportCause};

/// Other gRPC servers allow one ping in five minutes by default; this is a little longer.
const PATIENT_INTERVAL: Duration = Duration::from_secs(330);

/// How long the answer to such a ping may take.
const PATIENT_TIMEOUT: Duration = Duration::from_secs(20);

/// The default time within which a vanished peer is noticed.
const DEFAULT_WITHIN: Duration = Duration::from_secs(15);

/// The shortest interval between pings, and the shortest timeout.
const SHORTEST: Duration = Duration::from_millis(1);

/// The shortest heartbeat interval.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(10);

/// How an [`Endpoint`] notices that its peer has vanished: it is frozen, lost power, or is behind a
/// NAT that dropped the connection. Such a peer closes nothing, so only an unanswered ping shows it.
///
/// A ping is sent when nothing was received for an interval, with or without calls. The connection
/// is closed when the answer takes longer than a timeout.
///
/// # Pings and heartbeats
///
/// A proxy answers HTTP/2 pings itself, so behind a proxy a ping says nothing about the peer.
/// Therefore, if both ends use this library, the tunnel also has heartbeats, which pass through
/// proxies. Each end sends a heartbeat when it has sent nothing for [`Config::heartbeat`] (5 s by
/// default), and a tunnel is lost when nothing was received for two and a half of the other end's
/// intervals. So the interval of one end decides how soon the *other* end notices its loss.
///
/// The keepalive of a [`Gateway`](crate::Gateway) covers both: it sets the pings, and at least three
/// heartbeats within the same time. If the gateway's own heartbeats are slower, this end notices
/// later behind a proxy. Heartbeats are never slowed down.
///
/// # Servers that limit pings
///
/// Other gRPC servers close connections that are pinged more often than they allow (by default
/// once in five minutes), with the error `too_many_pings`. Towards such a server use
/// [`patient`](Self::patient), or change the server's policy. A
/// [`ReverseTunnelServer`](crate::ReverseTunnelServer) and a
/// [`ForwardChannel`](crate::ForwardChannel) notice the error and slow down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    pings: Option<Pings>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pings {
    interval: Duration,
    timeout: Duration,
}

/// Notices a vanished peer within 15 s: a ping after 10 s, and 5 s for its answer.
impl Default for Keepalive {
    fn default() -> Self {
        Self::within(DEFAULT_WITHIN)
    }
}

impl Keepalive {
    /// Notices a vanished peer within this time: a ping after two thirds of it, and one third for
    /// the answer. Below a few hundred milliseconds a busy peer may look like a vanished one.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tunnel_client::Keepalive;
    /// let quick = Keepalive::within(Duration::from_secs(2));
    /// assert_eq!(quick.noticed_within(), Some(Duration::from_secs(2)));
    /// ```
    pub fn within(time: Duration) -> Self {
        let timeout = (time / 3).max(SHORTEST);
        Self::every(time.saturating_sub(timeout), timeout)
    }

    /// A ping after `interval` of silence, and `timeout` for its answer. For servers with a known
    /// policy.
    pub fn every(interval: Duration, timeout: Duration) -> Self {
        let pings = Some(Pings {
            interval: interval.max(SHORTEST),
            timeout: timeout.max(SHORTEST),
        });
        Self { pings }
    }

    /// For servers that allow one ping in five minutes: a ping after five and a half minutes, and
    /// 20 s for its answer.
    pub fn patient() -> Self {
        Self::every(PATIENT_INTERVAL, PATIENT_TIMEOUT)
    }

    /// Sets nothing: no pings, unless the endpoint has its own settings.
    pub fn off() -> Self {
        Self { pings: None }
    }

    /// The longest time until pings notice a vanished peer; `None` without pings.
    pub fn noticed_within(&self) -> Option<Duration> {
        let pings = self.pings?;
        Some(pings.interval.saturating_add(pings.timeout))
    }

    /// This keepalive for a server that limits pings: never more often than
    /// [`patient`](Self::patient).
    pub(crate) fn slowed(self) -> Self {
        match self.pings {
            Some(pings) if pings.interval < PATIENT_INTERVAL => Self::patient(),
            _ => self,
        }
    }

    /// The settings of a tunnel, with heartbeats frequent enough for this keepalive.
    pub(crate) fn heartbeats(self, config: &Config) -> Config {
        let needed = self
            .noticed_within()
            .map(|within| (within / 3).max(SHORTEST_HEARTBEAT));
        let (Some(needed), Some(own)) = (needed, config.heartbeat()) else {
            return config.clone();
        };
        let sooner = config.to_builder().heartbeat(Some(needed.min(own))).build();
        // Not reached: no setting of it contradicts another.
        sooner.unwrap_or_else(|_| config.clone())
    }

    pub(crate) fn apply(self, endpoint: Endpoint) -> Endpoint {
        match self.pings {
            Some(Pings { interval, timeout }) => endpoint
                .http2_keep_alive_interval(interval)
                .keep_alive_timeout(timeout)
                .keep_alive_while_idle(true),
            None => endpoint,
        }
    }

    /// Whether a connection may have been ended for its pings, by a server whose word for it was
    /// lost; it had said nothing for so long.
    ///
    /// Servers that count pings forget them whenever they send something themselves, and end the
    /// connection at the third to fifth ping after. An end in just that time is suspicious.
    /// (HTTP/2 has a last word, and such servers send it; but once a stream was accepted it is
    /// told of the broken connection alone.)
    pub(crate) fn is_suspicious(self, silence: Duration) -> bool {
        let Some(Pings { interval, .. }) = self.slows_down() else {
            return false;
        };
        let earliest = interval.saturating_mul(5) / 2;
        let latest = interval.saturating_mul(6).saturating_add(LINGERING);
        (earliest..=latest).contains(&silence)
    }

    /// The pings, if they can be slower.
    fn slows_down(self) -> Option<Pings> {
        self.pings.filter(|p| p.interval < PATIENT_INTERVAL)
    }
}

/// How long a server may keep a connection open after its GOAWAY.
const LINGERING: Duration = Duration::from_secs(2);

/// Whether a server ended the tunnel's connection because it was pinged too often, and its word
/// for it arrived: dial with [`Keepalive::patient`] from then on.
///
/// A server that ends a connection so right away is understood only where it takes none of its
/// streams for accepted; otherwise the tunnel ends as with any broken connection. Where tunnels
/// to a server that is not ours end after a few of the intervals of [`Keepalive`] in which
/// nothing was called, time and again, this is the likely reason.
///
/// ```
/// use tunnel_client::{EndReason, too_many_pings};
/// assert!(!too_many_pings(&EndReason::PeerClosed));
/// ```
pub fn too_many_pings(reason: &EndReason) -> bool {
    let error = reason.transport_error();
    error.is_some_and(|error| error.cause() == TransportCause::TooManyPings)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_frozen_peer_is_noticed_within_the_time_asked_for() {
        assert_eq!(Keepalive::default().noticed_within(), Some(15 * SECOND));
        for time in [SECOND, 2 * SECOND, Duration::from_millis(200)] {
            assert_eq!(Keepalive::within(time).noticed_within(), Some(time));
        }
        let every = Keepalive::every(60 * SECOND, 5 * SECOND);
        assert_eq!(every.noticed_within(), Some(65 * SECOND));
        assert_eq!(Keepalive::off().noticed_within(), None);
    }

    #[test]
    fn no_setting_pings_without_a_pause() {
        let pings = Keepalive::within(Duration::ZERO).pings.expect("on");
        assert!(pings.interval >= SHORTEST && pings.timeout >= SHORTEST);
        // Nor does one overflow.
        assert!(Keepalive::within(Duration::MAX).noticed_within().is_some());
        assert!(!Keepalive::within(Duration::MAX).is_suspicious(SECOND));
    }

    #[test]
    fn heartbeats_come_three_times_within_the_time_or_more_often_if_so_set() {
        let heartbeat = |keepalive: Keepalive| keepalive.heartbeats(&Config::default()).heartbeat();
        assert_eq!(heartbeat(Keepalive::default()), Some(5 * SECOND));
        assert_eq!(heartbeat(Keepalive::within(3 * SECOND)), Some(SECOND));
        assert_eq!(
            heartbeat(Keepalive::within(Duration::ZERO)),
            Some(SHORTEST_HEARTBEAT)
        );
        for other in [Keepalive::patient(), Keepalive::off()] {
            assert_eq!(heartbeat(other), Some(5 * SECOND));
        }
        let none = Config::builder().heartbeat(None).build().expect("valid");
        assert_eq!(
            Keepalive::within(SECOND).heartbeats(&none).heartbeat(),
            None
        );
    }

    #[test]
    fn pings_slow_down_and_never_speed_up() {
        assert_eq!(Keepalive::default().slowed(), Keepalive::patient());
        assert_eq!(Keepalive::off().slowed(), Keepalive::off());
        let hour = Keepalive::within(3600 * SECOND);
        assert_eq!(hour.slowed(), hour);
    }

    #[test]
    fn an_end_at_the_third_to_fifth_ping_is_suspicious() {
        let ten = Keepalive::default();
        for silence in [30, 40, 41, 50] {
            assert!(ten.is_suspicious(silence * SECOND), "{silence}");
        }
        for silence in [0, 1, 10, 20, 70, 300, 3600] {
            assert!(!ten.is_suspicious(silence * SECOND), "{silence}");
        }
        assert!(!Keepalive::patient().is_suspicious(1000 * SECOND));
        assert!(!Keepalive::off().is_suspicious(40 * SECOND));
    }
}
