//! Settings of connections that carry tunnels: windows, and a keepalive of pings and heartbeats.

use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use tonic::transport::Endpoint;
use tunnel_core::{Config, EndReason, TransportCause};

/// The HTTP/2 window of a stream: how much can be in flight to this end on the tunnel's stream. It
/// is so large that only the tunnel's own windows limit its calls.
const STREAM_WINDOW: u32 = 16 << 20;

/// The HTTP/2 window of the connection: three other streams may be full and unread before the
/// tunnel has to wait.
const CONNECTION_WINDOW: u32 = 4 * STREAM_WINDOW;

/// How long connecting may take. The addresses of a name share this time equally.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);

/// HTTP/2 frames are as large as a batch of the tunnel, so that no chunk is split between two.
const MAX_FRAME: u32 = 1 << 20;

/// Sets an endpoint up for tunnels: HTTP/2 windows of 16 MiB for a stream and 64 MiB for the
/// connection, frames of up to 1 MiB, `TCP_NODELAY`, a keepalive that notices a vanished peer within
/// 15 s, and a connect timeout of 6 s if the endpoint has none. All of them can be changed on the
/// returned endpoint.
///
/// The addresses of a name share the connect timeout. If a name has two addresses and the first does
/// not answer, the second is tried after 3 s. Without a timeout it would be tried after minutes.
///
/// A peer can make this end hold 64 MiB for each connection. Three streams of a connection may be full
/// and unread without stopping the others.
///
/// Other gRPC servers may close connections that are pinged more often than once in five minutes. For
/// these, give [`endpoint_for_tunnels_with`] another [`Keepalive`].
///
/// ```
/// use tonic::transport::Endpoint;
/// let endpoint = tunnel_client::endpoint_for_tunnels(Endpoint::from_static("http://gateway:50051"));
/// # let _ = endpoint;
/// ```
pub fn endpoint_for_tunnels(endpoint: Endpoint) -> Endpoint {
    endpoint_for_tunnels_with(endpoint, Keepalive::default())
}

/// The same as [`endpoint_for_tunnels`], with another keepalive.
///
/// ```
/// use tonic::transport::Endpoint;
/// use tunnel_client::{Keepalive, endpoint_for_tunnels_with};
/// let endpoint = Endpoint::from_static("http://somebody-elses:50051");
/// let endpoint = endpoint_for_tunnels_with(endpoint, Keepalive::patient());
/// # let _ = endpoint;
/// ```
pub fn endpoint_for_tunnels_with(endpoint: Endpoint, keepalive: Keepalive) -> Endpoint {
    let connect_timeout = endpoint.get_connect_timeout().unwrap_or(CONNECT_TIMEOUT);
    let endpoint = endpoint
        .connect_timeout(connect_timeout)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .tcp_nodelay(true);
    keepalive.apply(endpoint)
}

/// A TCP connector with the settings of an endpoint, except its local address, which an endpoint does not show.
pub(crate) fn tcp_connector(endpoint: &Endpoint) -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(endpoint.get_tcp_nodelay());
    tcp.set_keepalive(endpoint.get_tcp_keepalive());
    tcp.set_keepalive_interval(endpoint.get_tcp_keepalive_interval());
    tcp.set_keepalive_retries(endpoint.get_tcp_keepalive_retries());
    tcp.set_connect_timeout(endpoint.get_connect_timeout());
    tcp
}

/// Other gRPC servers allow one ping in five minutes by default; this is a little longer.
const PATIENT_INTERVAL: Duration = Duration::from_secs(330);

/// How long the answer to such a ping may take.
const PATIENT_TIMEOUT: Duration = Duration::from_secs(20);

/// The default time until a vanished peer is noticed.
const DETECTION_TIMEOUT: Duration = Duration::from_secs(15);

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
#[must_use = "a keepalive does nothing unless it is given to a gateway or an endpoint"]
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
        Self::new(DETECTION_TIMEOUT)
    }
}

impl Keepalive {
    /// Notices a vanished peer after this timeout: a ping after two thirds of it in silence, and one
    /// third for the answer. Below a few hundred milliseconds a busy peer may look like a vanished one.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tunnel_client::Keepalive;
    /// let quick = Keepalive::new(Duration::from_secs(2));
    /// assert_eq!(quick.detection_timeout(), Some(Duration::from_secs(2)));
    /// ```
    pub fn new(detection_timeout: Duration) -> Self {
        let ping_timeout = (detection_timeout / 3).max(SHORTEST);
        Self::every(detection_timeout.saturating_sub(ping_timeout), ping_timeout)
    }

    /// A ping after `interval` of silence, and `ping_timeout` for its answer. For servers with a known
    /// policy.
    pub fn every(interval: Duration, ping_timeout: Duration) -> Self {
        let pings = Some(Pings {
            interval: interval.max(SHORTEST),
            timeout: ping_timeout.max(SHORTEST),
        });
        Self { pings }
    }

    /// For servers that allow one ping in five minutes: a ping after five and a half minutes, and
    /// 20 s for its answer.
    pub fn patient() -> Self {
        Self::every(PATIENT_INTERVAL, PATIENT_TIMEOUT)
    }

    /// No pings, unless the endpoint has its own settings for them.
    pub fn off() -> Self {
        Self { pings: None }
    }

    /// The longest time until pings notice a vanished peer; `None` without pings.
    pub fn detection_timeout(&self) -> Option<Duration> {
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

    /// The settings of a tunnel, with heartbeats that are frequent enough for this keepalive.
    pub(crate) fn heartbeats(self, config: &Config) -> Config {
        let needed = self
            .detection_timeout()
            .map(|timeout| (timeout / 3).max(SHORTEST_HEARTBEAT));
        let (Some(needed), Some(own)) = (needed, config.heartbeat()) else {
            return config.clone();
        };
        let sooner = config.to_builder().heartbeat(Some(needed.min(own))).build();
        // Cannot fail: a shorter heartbeat contradicts no other setting.
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

    /// Whether a server may have ended the connection because of its pings, judged by how long the
    /// server was silent before.
    ///
    /// Servers that count pings reset the count whenever they send something, and end the connection at
    /// the third to fifth ping after that. So an end in that time is suspicious. Such servers do send
    /// a GOAWAY with the reason, but an accepted stream often only sees the broken connection.
    pub(crate) fn is_suspicious(self, silence: Duration) -> bool {
        let Some(Pings { interval, .. }) = self.slows_down() else {
            return false;
        };
        let earliest = interval.saturating_mul(5) / 2;
        let latest = interval.saturating_mul(6).saturating_add(LINGERING);
        (earliest..=latest).contains(&silence)
    }

    /// The pings, if they can be slowed down.
    fn slows_down(self) -> Option<Pings> {
        self.pings.filter(|p| p.interval < PATIENT_INTERVAL)
    }
}

/// How long a server may keep a connection open after its GOAWAY.
const LINGERING: Duration = Duration::from_secs(2);

/// Whether the server said that it ended the tunnel's connection because pings were too frequent.
/// Then use [`Keepalive::patient`].
///
/// The reason is often lost with the connection, and the tunnel ends as with any broken connection. If
/// idle tunnels to a server of another implementation end again and again after three to five
/// intervals of their [`Keepalive`], this is the likely reason.
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
    use crate::dial::OPEN_TIMEOUT;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_detection_timeout_is_the_given_time() {
        assert_eq!(Keepalive::default().detection_timeout(), Some(15 * SECOND));
        for time in [SECOND, 2 * SECOND, Duration::from_millis(200)] {
            assert_eq!(Keepalive::new(time).detection_timeout(), Some(time));
        }
        let every = Keepalive::every(60 * SECOND, 5 * SECOND);
        assert_eq!(every.detection_timeout(), Some(65 * SECOND));
        assert_eq!(Keepalive::off().detection_timeout(), None);
    }

    #[test]
    fn pings_have_a_shortest_interval_with_any_setting() {
        let pings = Keepalive::new(Duration::ZERO).pings.expect("on");
        assert!(pings.interval >= SHORTEST && pings.timeout >= SHORTEST);
        // Very long settings do not overflow.
        assert!(Keepalive::new(Duration::MAX).detection_timeout().is_some());
        assert!(!Keepalive::new(Duration::MAX).is_suspicious(SECOND));
    }

    #[test]
    fn heartbeats_are_sent_three_times_within_the_timeout_or_more_often_if_configured() {
        let heartbeat = |keepalive: Keepalive| keepalive.heartbeats(&Config::default()).heartbeat();
        assert_eq!(heartbeat(Keepalive::default()), Some(5 * SECOND));
        assert_eq!(heartbeat(Keepalive::new(3 * SECOND)), Some(SECOND));
        assert_eq!(
            heartbeat(Keepalive::new(Duration::ZERO)),
            Some(SHORTEST_HEARTBEAT)
        );
        for other in [Keepalive::patient(), Keepalive::off()] {
            assert_eq!(heartbeat(other), Some(5 * SECOND));
        }
        let none = Config::builder().heartbeat(None).build().expect("valid");
        assert_eq!(Keepalive::new(SECOND).heartbeats(&none).heartbeat(), None);
    }

    #[test]
    fn pings_slow_down_and_never_speed_up() {
        assert_eq!(Keepalive::default().slowed(), Keepalive::patient());
        assert_eq!(Keepalive::off().slowed(), Keepalive::off());
        let hour = Keepalive::new(3600 * SECOND);
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

    #[test]
    fn connecting_leaves_time_for_the_tunnel_and_a_given_timeout_is_kept() {
        let endpoint = Endpoint::from_static("http://gateway");
        let set_up = endpoint_for_tunnels(endpoint.clone());
        assert!(set_up.get_connect_timeout() < Some(OPEN_TIMEOUT / 2));
        let own = Duration::from_secs(60);
        let set_up = endpoint_for_tunnels(endpoint.connect_timeout(own));
        assert_eq!(set_up.get_connect_timeout(), Some(own));
    }
}
