//! Liveness: heartbeats, and the detection of a silent peer.
//!
//! An end that has sent nothing for an interval sends a heartbeat, a window update of zero on stream
//! -1. If the peer has offered heartbeats, two and a half intervals without a received byte end the
//! tunnel. Heartbeats are also sent to peers that have not offered them and ignore them, so that
//! proxies do not close an idle tunnel; the silence of such a peer ends nothing.
//!
//! Where both ends offer it, a heartbeat is sent in each interval, also while other frames are sent. It
//! is a probe: the peer answers it, which measures the round-trip time.
//!
//! ```text
//! interval 5 s      sent ──5 s──▶ heartbeat ──5 s──▶ heartbeat ...
//! silence 12.5 s    heard ───────────12.5 s──────────▶ PeerSilent, unless this end was absent
//! ```

use std::time::{Duration, Instant};

use super::Connection;
use super::phase::Phase;
use crate::streams::schedule::Heartbeat;
use crate::timer::Timer;
use crate::{ConnectionError, Offer, Side};

/// If a timer fires this much too late, the process was suspended.
const LATE: Duration = Duration::from_millis(100);

/// The heartbeats of a tunnel.
#[derive(Debug)]
pub(super) struct Liveness {
    /// A heartbeat is sent after this time without a sent frame.
    interval: Duration,
    /// The tunnel is lost after this time without a received byte.
    silence: Option<Duration>,
    /// Whether heartbeats wait for the peer's first call. Before that, the Go library's caller
    /// treats a frame on stream -1 as an error.
    after_first_call: bool,
    /// The last sent frame; with probes the last sent heartbeat.
    sent: Instant,
    heard: Instant,
    /// Whether heartbeats are probes.
    probes: bool,
    /// When the probe was sent that is not answered yet.
    probed: Option<Instant>,
    round_trip: Option<Duration>,
    round_trips: u64,
}

impl Liveness {
    /// The last round-trip time, and how many were measured.
    pub(super) fn round_trips(&self) -> (Option<Duration>, u64) {
        (self.round_trip, self.round_trips)
    }
}

impl Connection {
    /// Starts heartbeats and the detection of silence, when the peer's offer is known.
    pub(super) fn start_liveness(&mut self, now: Instant, peer: &Offer) {
        let Some(interval) = self.config().heartbeat() else {
            return;
        };
        if !peer.negotiate {
            return;
        }
        self.liveness = Some(Liveness {
            interval,
            silence: peer.heartbeat.map(|interval| {
                let shortest = self.config().silence_timeout();
                shortest.max(interval * 5 / 2)
            }),
            after_first_call: peer.heartbeat.is_none() && self.store.side == Side::Handler,
            sent: now,
            heard: now,
            probes: self.store.answers_probes,
            probed: None,
            round_trip: None,
            round_trips: 0,
        });
        self.arm_liveness(now);
    }

    /// Notes that bytes came from the peer, even if they are less than a frame, so that the peer does
    /// not count as silent. Call this before the frames are handled.
    pub fn handle_activity(&mut self, now: Instant) {
        let now = self.advance(now);
        self.heard(now);
    }

    pub(super) fn heard(&mut self, now: Instant) {
        if let Some(liveness) = &mut self.liveness {
            liveness.heard = now;
        }
        self.unanswered_since = None;
    }

    pub(super) fn sent(&mut self, now: Instant) {
        if let Some(liveness) = &mut self.liveness
            && !liveness.probes
        {
            liveness.sent = now;
        }
    }

    /// A heartbeat was written.
    pub(super) fn heartbeat_sent(&mut self, heartbeat: Heartbeat, now: Instant) {
        if let Some(liveness) = &mut self.liveness {
            liveness.sent = now;
            if heartbeat == Heartbeat::Probe {
                liveness.probed = Some(now);
            }
        }
    }

    /// Handles the answer to a probe. Returns whether a probe waits for one.
    pub(super) fn on_echo(&mut self) -> bool {
        let Some(liveness) = &mut self.liveness else {
            return false;
        };
        let sample = self.now.zip(liveness.probed.take());
        if let Some((now, probed)) = sample {
            liveness.round_trip = Some(now.saturating_duration_since(probed));
            liveness.round_trips += 1;
        }
        sample.is_some()
    }

    /// Caller: when a call was first sent since the peer was last heard; `None` if the peer was
    /// heard since. Calls that were cancelled count too, because the peer was silent all the same.
    pub fn unanswered_since(&self) -> Option<Instant> {
        self.unanswered_since
    }

    /// When the peer was last heard; `None` if it sends no heartbeats, or this end has none.
    pub fn heard_at(&self) -> Option<Instant> {
        let liveness = self.liveness.as_ref()?;
        liveness.silence.map(|_| liveness.heard)
    }

    /// Handles the timer: sends a heartbeat, or ends the tunnel of a silent peer.
    pub(super) fn on_liveness(&mut self, due: Instant, now: Instant) {
        let reads = self.wants_input();
        let Some(liveness) = &mut self.liveness else {
            return;
        };
        let late = now.saturating_duration_since(due);
        // While this end was suspended or did not read, it could not notice the peer's bytes.
        if !reads {
            liveness.heard = now;
        } else if late >= LATE {
            liveness.heard = (liveness.heard + late).min(now);
        }
        if let Some(silence) = liveness.silence
            && now.saturating_duration_since(liveness.heard) >= silence
        {
            self.end(ConnectionError::PeerSilent(silence).into());
            return;
        }
        let quiet = now.saturating_duration_since(liveness.sent) >= liveness.interval;
        let announced = !self.ready_is_due || self.store.side == Side::Handler;
        let may = announced && (!liveness.after_first_call || self.highest_seen >= 0);
        if quiet && may {
            // One probe at a time: the answer to an earlier one may still come.
            let probe = liveness.probes && liveness.probed.is_none();
            self.store.schedule.heartbeat = Some(match probe {
                true => Heartbeat::Probe,
                false => Heartbeat::Plain,
            });
        }
        self.arm_liveness(now);
    }

    fn arm_liveness(&mut self, now: Instant) {
        let Some(liveness) = &self.liveness else {
            return;
        };
        if matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        let send = liveness.sent + liveness.interval;
        // A heartbeat that waits to be written is not scheduled again at once.
        let send = if send > now {
            send
        } else {
            now + liveness.interval
        };
        let lost = liveness.silence.map(|silence| liveness.heard + silence);
        let at = lost.map_or(send, |lost| lost.min(send));
        self.store.timers.set(Timer::Liveness, at);
    }
}
