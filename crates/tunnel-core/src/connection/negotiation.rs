//! How the two ends agree on the revision and on extensions.

use std::time::{Duration, Instant};

use super::Connection;
use super::phase::Phase;
use crate::config::MAX_WINDOW;
use crate::event::Event;
use crate::frame::Settings;
use crate::streams::schedule::Heartbeat;
use crate::streams::{Revision, flow::Window};
use crate::timer::Timer;
use crate::{Config, ConnectionError, EndReason, Revisions, Side};

/// The header by which each end of the outer call offers to negotiate.
pub const NEGOTIATE_HEADER: &str = "grpctunnel-negotiate";

/// The value of [`NEGOTIATE_HEADER`], [`DRAIN_HEADER`], [`ECHO_HEADER`], [`MESSAGE_CREDIT_HEADER`],
/// [`NOTICES_HEADER`], [`READY_HEADER`], [`OPAQUE_TEXT_HEADER`] and [`COMPRESSED_MESSAGES_HEADER`].
pub const NEGOTIATE_VALUE: &str = "on";

/// The header by which each end says that it understands drain notices. An extension of this
/// library; others ignore it.
///
/// A drain notice is a frame on stream -1: a handler sends a close whose trailer names the last
/// stream that it serves, a caller sends a half-close. It is sent only to a peer that has sent this
/// header.
pub const DRAIN_HEADER: &str = "grpctunnel-drain";

/// The header by which each end says that it understands a [`Notice`](crate::Notice), a message on stream -1. Sent
/// only where both ends have sent this header. An extension of this library.
pub const NOTICES_HEADER: &str = "grpctunnel-notices";

/// The header by which each end offers heartbeats, with its interval in milliseconds. An extension
/// of this library.
///
/// A heartbeat is a window update of zero on stream -1. An end that has offered heartbeats sends
/// one when it has sent nothing for its interval. Its peer counts it as lost after two and a half
/// intervals of silence.
pub const HEARTBEAT_HEADER: &str = "grpctunnel-heartbeat";

/// The header by which each end says that it answers probes. An extension of this library.
///
/// A probe is a heartbeat that asks for an answer: a window update of one on stream -1. The answer is
/// a window update of two. Where both ends offer it, a probe is sent in each interval of the
/// heartbeats, also while other frames are sent, and measures the round-trip time.
pub const ECHO_HEADER: &str = "grpctunnel-echo";

/// The header by which each end offers message credit. Where both ends do, each message costs five
/// bytes of its stream's window beside its payload, as in HTTP/2. An extension of this library.
pub const MESSAGE_CREDIT_HEADER: &str = "grpctunnel-message-credit";

/// The header by which an end says how many calls it serves at once. Callers of this library queue
/// further calls. An extension of this library.
pub const MAX_STREAMS_HEADER: &str = "grpctunnel-max-streams";

/// The header by which the ends of a reverse tunnel agree that the caller announces when it routes
/// calls to the tunnel: with the first frame that it sends. An extension of this library.
pub const READY_HEADER: &str = "grpctunnel-ready";

/// The cost of a message beside its payload, in bytes, where both ends offer message credit.
const MESSAGE_COST: u8 = 5;

/// An end with smaller windows does not offer message credit, which would use up most of them.
const SMALLEST_COUNTED_WINDOW: u32 = 1024;

/// The header by which each end says that it accepts metadata values that are not UTF-8, in an
/// encoding of this library. An extension of this library.
pub const OPAQUE_TEXT_HEADER: &str = "grpctunnel-opaque-text";

/// The header by which the end that dialled tells the id that both ends log for the tunnel: 16
/// hexadecimal digits. An extension of this library.
pub const TUNNEL_ID_HEADER: &str = "grpctunnel-id";

/// The header by which each end says that it accepts compressed messages. Where both ends do, a
/// message keeps the flag of its prefix, and the tunnel carries its bytes as they are. An extension
/// of this library.
pub const COMPRESSED_MESSAGES_HEADER: &str = "grpctunnel-compressed-messages";

/// The trailer that marks a refused call as not processed, so that it is safe to retry. An
/// extension of this library.
pub const NOT_PROCESSED_KEY: &str = "grpctunnel-not-processed";

/// The trailer of a handler's drain notice that names the last stream it serves.
pub(super) const LAST_STREAM_KEY: &str = "grpctunnel-last-stream";

/// What the peer offered in its headers of the outer call.
///
/// A transport that connects two ends of this library starts with [`of`](Self::of) the peer's
/// configuration. One that reads headers starts with [`none`](Self::none) and sets the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Offer {
    /// It sent [`NEGOTIATE_HEADER`].
    pub negotiate: bool,
    /// It sent [`DRAIN_HEADER`].
    pub drain: bool,
    /// It sent [`NOTICES_HEADER`].
    pub notices: bool,
    /// The interval in its [`HEARTBEAT_HEADER`].
    pub heartbeat: Option<Duration>,
    /// It sent [`ECHO_HEADER`].
    pub echo: bool,
    /// It sent [`MESSAGE_CREDIT_HEADER`].
    pub message_credit: bool,
    /// The number in its [`MAX_STREAMS_HEADER`].
    pub max_streams: Option<usize>,
    /// It sent [`OPAQUE_TEXT_HEADER`]. Only the binding uses this.
    pub opaque_text: bool,
    /// It sent [`READY_HEADER`]. A caller whose peer did must call
    /// [`announce_ready`](Connection::announce_ready); a handler then gets
    /// [`Event::PeerReady`].
    pub ready: bool,
    /// It sent [`COMPRESSED_MESSAGES_HEADER`].
    pub compressed_messages: bool,
}

impl Offer {
    /// The offer of a peer that sent none of the headers.
    pub fn none() -> Self {
        Self {
            negotiate: false,
            drain: false,
            notices: false,
            heartbeat: None,
            echo: false,
            message_credit: false,
            max_streams: None,
            opaque_text: false,
            ready: false,
            compressed_messages: false,
        }
    }

    /// The offer of this library with these settings, without [`ready`](Self::ready), which the
    /// binding adds.
    pub fn of(config: &Config) -> Self {
        if config.revisions() == Revisions::OnlyZero {
            return Self {
                opaque_text: true,
                compressed_messages: true,
                ..Self::none()
            };
        }
        Self {
            negotiate: true,
            drain: true,
            notices: true,
            heartbeat: config.heartbeat(),
            echo: true,
            message_credit: config.initial_window() >= SMALLEST_COUNTED_WINDOW,
            max_streams: Some(config.max_concurrent_streams()),
            opaque_text: true,
            ready: false,
            compressed_messages: true,
        }
    }
}

impl Connection {
    /// The outer call is open: the headers of both ends are known.
    ///
    /// A handler is ready at once, a caller when settings have come, or at once with a peer
    /// that does not negotiate (revision zero). Does nothing when called a second time.
    pub fn start(&mut self, now: Instant, peer: Offer) {
        let now = self.advance(now);
        if self.phase != Phase::Opening {
            return;
        }
        self.negotiated = peer.negotiate;
        self.peer_knows_drain = peer.negotiate && peer.drain;
        self.ready_is_due = peer.negotiate && peer.ready;
        let ours = Offer::of(self.config());
        self.knows_notices = peer.negotiate && peer.notices && ours.notices;
        if peer.message_credit && ours.message_credit {
            self.store.message_cost = MESSAGE_COST;
        }
        self.store.carries_compressed = peer.compressed_messages && ours.compressed_messages;
        self.store.peer_max_streams = peer.max_streams.filter(|_| self.store.side == Side::Caller);
        if self.peer_knows_drain && peer.max_streams.is_none() {
            self.store.schedule.cancels.pace();
        }
        self.store.answers_probes = peer.echo && ours.echo;
        self.start_liveness(now, &peer);
        if !peer.negotiate {
            self.settle(&[]);
            return;
        }
        match self.store.side {
            Side::Caller => {
                self.phase = Phase::AwaitingSettings;
                let timeout = self.config().settings_timeout();
                if let Some(at) = now.checked_add(timeout) {
                    self.store.timers.set(Timer::Settings, at);
                }
            }
            Side::Handler => {
                self.store.schedule.settings = true;
                self.become_ready();
            }
        }
    }

    /// Chooses the revision from what the peer speaks; an empty list means revision zero.
    fn settle(&mut self, listed: &[i32]) {
        let ours = self.config().revisions();
        let zero = [Revision::Zero.to_wire()];
        let theirs = if listed.is_empty() { &zero } else { listed };
        let both = |r: Revision, allowed: bool| allowed && theirs.contains(&r.to_wire());
        if both(Revision::One, ours.allows_one()) {
            self.revision = Revision::One;
        } else if both(Revision::Zero, ours.allows_zero()) {
            self.revision = Revision::Zero;
        } else {
            let theirs = theirs.to_vec();
            self.end(ConnectionError::NoCommonRevision { theirs }.into());
            return;
        }
        self.become_ready();
    }

    fn become_ready(&mut self) {
        self.phase = Phase::Ready;
        self.store.events.push_back(Event::Ready);
        self.send_notice();
        // The drain may have begun while the tunnel was being opened.
        self.announce_drain();
        self.finish_drain_if_done();
    }

    /// Caller: tells a peer that sent [`READY_HEADER`] that calls are routed to this tunnel from now
    /// on. Does nothing before [`Event::Ready`], and when called a second time. Until then no
    /// heartbeat is sent.
    pub fn announce_ready(&mut self) {
        if self.store.side == Side::Caller && self.phase == Phase::Ready && self.ready_is_due {
            self.ready_is_due = false;
            self.store.schedule.heartbeat = Some(Heartbeat::Plain);
            self.send_notice();
        }
    }

    /// Handler: reports the first frame of a peer that announces when it routes calls.
    pub(super) fn hear_ready(&mut self) {
        if self.ready_is_due && self.store.side == Side::Handler && self.phase == Phase::Ready {
            self.ready_is_due = false;
            self.store.events.push_back(Event::PeerReady);
        }
    }

    /// Caller: the handler's settings.
    pub(super) fn on_settings(&mut self, settings: &Settings) -> Result<(), ConnectionError> {
        self.store.timers.clear(Timer::Settings);
        // More credit than a window can hold is reduced to the largest window.
        let credit = settings.initial_window.min(MAX_WINDOW);
        self.first_credit = Window::new(credit).unwrap_or_default();
        self.settle(&settings.revisions);
        match self.end_reason() {
            Some(EndReason::Error(e)) => Err(e.clone()),
            _ => Ok(()),
        }
    }

    /// Handler: whether a stream may have this revision.
    pub(super) fn accepts_revision(&self, revision: i32) -> Option<Revision> {
        let ours = self.config().revisions();
        match Revision::from_wire(revision)? {
            Revision::Zero if ours.allows_zero() => Some(Revision::Zero),
            Revision::One if ours.allows_one() && self.negotiated => Some(Revision::One),
            _ => None,
        }
    }
}
