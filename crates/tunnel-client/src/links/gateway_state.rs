//! What the links of a gateway know about it: whether it is likely to accept a tunnel, and whether
//! pings are too frequent for it.

use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body, Frame};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tunnel_core::{EndReason, TransportCause};
use tunnel_tonic::TunnelError;

use super::seats::Seats;
use crate::endpoint::{Keepalive, too_many_pings};
use crate::gateway::Gateway;

/// After this number of suspicious ends in a row, pings are slowed down. One may be chance.
const SUSPICIONS: u32 = 2;

/// How long pings are slowed down after `too_many_pings`, which is a setting of the server and seldom
/// changes.
const SLOW_IF_CERTAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// How long pings are slowed down on suspicion. A gateway that has crashed twice may look the same.
const SLOW_IF_LIKELY: Duration = Duration::from_secs(30 * 60);

/// A gateway and its state.
#[derive(Debug)]
pub(crate) struct GatewayState {
    /// Unique among the gateways of a server or channel, also those that were removed.
    pub(crate) number: usize,
    pub(crate) name: Arc<str>,
    pub(crate) gateway: Gateway,
    /// The name at one of whose addresses it is.
    parent: Option<Arc<GatewayState>>,
    /// Of a name: notified when a tunnel to one of its addresses has failed or ended.
    pub(crate) address_failed: Notify,
    /// Where the tunnels of its links are.
    pub(crate) seats: watch::Sender<Seats>,
    /// The number of its first link.
    first_link: usize,
    /// For each link: notified when calls wait for it.
    pub(crate) wanted: Vec<Notify>,
    removed: watch::Sender<bool>,
    memory: Mutex<Memory>,
    /// Whether it announces when it routes calls to a tunnel.
    announces: AtomicBool,
}

/// Whether a gateway is likely to accept a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing speaks against it.
    #[default]
    Good,
    /// It is draining, or the last attempt failed.
    Away,
}

#[derive(Debug, Default)]
struct Memory {
    standing: Standing,
    /// Until when tunnels are dialled with slow pings.
    slow_until: Option<Instant>,
    suspicions: u32,
}

impl GatewayState {
    /// A gateway whose links have the numbers from `first_link` on.
    pub(crate) fn new(
        gateway: Gateway,
        parent: Option<Arc<GatewayState>>,
        number: usize,
        first_link: usize,
        links: usize,
    ) -> Self {
        // The link to a name only looks it up.
        let links = if gateway.lookup().is_some() { 1 } else { links };
        Self {
            number,
            name: gateway.name_in_place(number),
            gateway,
            parent,
            address_failed: Notify::new(),
            first_link,
            seats: watch::Sender::new(Seats::new(links)),
            wanted: (0..links).map(|_| Notify::new()).collect(),
            removed: watch::Sender::new(false),
            memory: Mutex::default(),
            announces: AtomicBool::new(false),
        }
    }

    /// The numbers of its links, unique like that of the gateway.
    pub(crate) fn links(&self) -> Range<usize> {
        self.first_link..self.first_link + self.wanted.len()
    }

    /// Whether it is the name itself, or one of the addresses of the name, with this number.
    pub(crate) fn belongs_to(&self, number: usize) -> bool {
        let parent = self.parent.as_ref().map(|parent| parent.number);
        self.number == number || parent == Some(number)
    }

    /// Whether it was added by a user, and not as one of the addresses of a name.
    pub(crate) fn is_of_user(&self) -> bool {
        self.parent.is_none()
    }

    /// Has the name looked up again, if it is at one of the addresses of a name.
    pub(crate) fn doubt_address(&self) {
        if let Some(parent) = &self.parent {
            parent.address_failed.notify_one();
        }
    }

    /// Notes that the gateway was removed.
    pub(crate) fn remove(&self) {
        self.removed.send_replace(true);
    }

    pub(crate) fn is_removed(&self) -> bool {
        *self.removed.borrow()
    }

    /// Waits until the gateway is removed.
    pub(crate) async fn removed(&self) {
        let mut removed = self.removed.subscribe();
        // Cannot fail: the sender is borrowed here.
        let _ = removed.wait_for(|removed| *removed).await;
    }

    /// Siblings of the gateway, from addresses that it has told, except those that its settings do not allow. They have
    /// no links, are at no address of a name, and are never removed.
    pub(crate) fn siblings(&self, told: &[String]) -> Vec<Arc<Self>> {
        let uris = told.iter().filter_map(|uri| uri.parse().ok());
        let siblings = uris.filter_map(|uri: http::Uri| {
            let sibling = self.gateway.sibling(&uri);
            if sibling.is_none() {
                tracing::debug!(gateway = %self.name, %uri, "not following a sibling of the gateway");
            }
            sibling
        });
        let siblings = siblings.enumerate();
        siblings
            .map(|(n, gateway)| Arc::new(Self::new(gateway, None, n, 0, 0)))
            .collect()
    }

    /// Whether the gateway announced for its latest tunnel when it routes calls to it.
    pub(crate) fn announces(&self) -> bool {
        self.announces.load(Ordering::Relaxed)
    }

    pub(crate) fn set_announces(&self, announces: bool) {
        self.announces.store(announces, Ordering::Relaxed);
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn standing(&self) -> Standing {
        self.memory().standing
    }

    pub(crate) fn set_standing(&self, standing: Standing) {
        self.memory().standing = standing;
    }

    /// Whether pings to the gateway are slowed down.
    pub(crate) fn is_slow(&self) -> bool {
        self.memory().is_slow()
    }

    /// Notes how a tunnel ended, and how long the gateway was silent before. `slow` says whether the
    /// tunnel had slow pings.
    pub(crate) fn learn(&self, slow: bool, reason: &EndReason, silence: Duration) {
        let keepalive = self.gateway.own_keepalive();
        // Slow pings prove nothing about fast ones, and a user's channel has its own pings.
        let Some(keepalive) = keepalive.filter(|_| !slow) else {
            return;
        };
        let news = self.memory().slows_down(keepalive, reason, silence);
        self.warn(news);
    }

    /// Notes a failed attempt to open a tunnel.
    pub(crate) fn learn_from_failure(&self, error: &TunnelError) {
        if let Some(keepalive) = self.gateway.own_keepalive()
            && let Some(error) = error.transport_error()
            && error.cause() == TransportCause::TooManyPings
        {
            let news = self.memory().slow_down(keepalive, SLOW_IF_CERTAIN);
            self.warn(news);
        }
    }

    fn warn(&self, news: bool) {
        if news {
            tracing::warn!(
                gateway = %self.name,
                "keepalive pings are too frequent for the gateway, slowing them down; a vanished \
                 gateway is noticed later"
            );
        }
    }
}

impl Memory {
    /// Notes how a tunnel ended. Returns whether pings are slowed down from now on.
    fn slows_down(&mut self, keepalive: Keepalive, reason: &EndReason, silence: Duration) -> bool {
        let suspicious = is_broken(reason) && keepalive.is_suspicious(silence);
        self.suspicions = if suspicious { self.suspicions + 1 } else { 0 };
        match (too_many_pings(reason), self.suspicions >= SUSPICIONS) {
            (true, _) => self.slow_down(keepalive, SLOW_IF_CERTAIN),
            (false, true) => self.slow_down(keepalive, SLOW_IF_LIKELY),
            (false, false) => false,
        }
    }

    /// Slows pings down for a time. Returns whether they were not slow before.
    fn slow_down(&mut self, keepalive: Keepalive, time: Duration) -> bool {
        let known = self.is_slow();
        self.suspicions = 0;
        self.slow_until = self.slow_until.max(Some(Instant::now() + time));
        !known && keepalive.slowed() != keepalive
    }

    fn is_slow(&self) -> bool {
        self.slow_until.is_some_and(|until| Instant::now() < until)
    }
}

/// Whether the connection broke for another reason than this end's keepalive.
fn is_broken(reason: &EndReason) -> bool {
    let error = reason.transport_error();
    error.is_some_and(|error| error.cause() != TransportCause::KeepaliveTimedOut)
}

/// When something was last received from the far end, to the millisecond.
#[derive(Clone, Debug)]
pub(crate) struct Activity {
    since: Instant,
    last: Arc<AtomicU64>,
}

impl Activity {
    /// Starts with something received now: the response headers.
    pub(crate) fn now() -> Self {
        Self {
            since: Instant::now(),
            last: Arc::default(),
        }
    }

    /// How long nothing has been received.
    pub(crate) fn silence(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.since.elapsed().saturating_sub(last)
    }

    /// Wraps a body to note each received piece.
    pub(crate) fn listen<B>(&self, body: B) -> Watched<B> {
        let activity = self.clone();
        Watched { body, activity }
    }

    fn note(&self) {
        let elapsed = u64::try_from(self.since.elapsed().as_millis());
        self.last
            .store(elapsed.unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// A body that notes its pieces.
#[derive(Debug)]
pub(crate) struct Watched<B> {
    body: B,
    activity: Activity,
}

impl<B: Body + Unpin> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        let piece = ready!(Pin::new(&mut this.body).poll_frame(cx));
        // The end itself is not noted: the silence before it is what matters.
        if matches!(piece, Some(Ok(_))) {
            this.activity.note();
        }
        Poll::Ready(piece)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::collections::VecDeque;
    use tunnel_core::ConnectionError;

    fn lost(cause: TransportCause) -> EndReason {
        EndReason::Error(ConnectionError::TransportLost(cause.into()))
    }

    fn ends(ends: &[(EndReason, u64)]) -> Vec<bool> {
        let mut memory = Memory::default();
        let slows = ends.iter().map(|(reason, silence)| {
            let silence = Duration::from_secs(*silence);
            memory.slows_down(Keepalive::default(), reason, silence)
        });
        slows.collect()
    }

    #[test]
    fn too_many_pings_slows_down_at_once_and_is_reported_once() {
        let word = lost(TransportCause::TooManyPings);
        let news = ends(&[(word.clone(), 1), (word, 1), (lost(TransportCause::Io), 1)]);
        assert_eq!(news, [true, false, false]);
    }

    #[test]
    fn two_suspicious_ends_in_a_row_slow_down() {
        let end = || (lost(TransportCause::Io), 41);
        assert_eq!(ends(&[end(), end(), end()]), [false, true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspicion_is_forgotten_before_too_many_pings() {
        let forgotten_after = async |ends: &[EndReason]| {
            let mut memory = Memory::default();
            for end in ends {
                let silence = Duration::from_secs(41);
                memory.slows_down(Keepalive::default(), end, silence);
            }
            let start = Instant::now();
            while memory.is_slow() {
                tokio::time::advance(Duration::from_secs(60)).await;
            }
            start.elapsed()
        };
        let broken = || lost(TransportCause::Io);
        assert_eq!(forgotten_after(&[broken(), broken()]).await, SLOW_IF_LIKELY);
        assert_eq!(
            forgotten_after(&[lost(TransportCause::TooManyPings)]).await,
            SLOW_IF_CERTAIN
        );
        let word_and_guess = [lost(TransportCause::TooManyPings), broken(), broken()];
        assert_eq!(forgotten_after(&word_and_guess).await, SLOW_IF_CERTAIN);
    }

    #[test]
    fn anything_else_between_them_clears_the_suspicion() {
        let end = || (lost(TransportCause::Io), 41);
        for other in [
            (lost(TransportCause::Io), 5),
            (lost(TransportCause::Io), 300),
            (lost(TransportCause::KeepaliveTimedOut), 41),
            (EndReason::PeerClosed, 41),
            (EndReason::PeerDrained, 41),
        ] {
            assert_eq!(ends(&[end(), other, end()]), [false; 3]);
        }
    }

    struct Pieces(VecDeque<Result<Frame<Bytes>, &'static str>>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            Poll::Ready(self.0.pop_front())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_lasts_from_the_last_piece_and_not_from_the_end() {
        let activity = Activity::now();
        let piece = Ok(Frame::data(Bytes::from_static(b"x")));
        let mut body = activity.listen(Pieces([piece, Err("broken")].into()));
        let mut next = async || {
            tokio::time::advance(Duration::from_secs(3)).await;
            std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
        };
        assert_eq!(activity.silence(), Duration::ZERO);
        assert!(next().await.expect("a piece").is_ok());
        assert_eq!(activity.silence(), Duration::ZERO);
        assert!(next().await.expect("an error").is_err());
        assert_eq!(activity.silence(), Duration::from_secs(3));
        assert!(next().await.is_none());
        assert_eq!(activity.silence(), Duration::from_secs(6));
    }
}
