//! How a tunnel ends: by a drain, by a deadline, at once, or because its transport was lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Connection;
use super::phase::Phase;
use crate::event::Event;
use crate::streams::store::Reply;
use crate::timer::Timer;
use crate::{Code, ConnectionError, EndReason, Initiator, Notice, Side, Status, StreamError};

/// How long after a drain's deadline the transport may take to write the ends of the calls
/// that it cut.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Connection {
    /// Fires all timers that are due at `now`. Call it at the time of
    /// [`poll_timeout`](Self::poll_timeout), after handling everything that the transport has
    /// received, since it also decides whether the peer has been silent for too long. Calling it
    /// at another time does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.fire(now, true);
    }

    /// Fires the timers that are due. The check for a silent peer needs everything received to be
    /// handled, so it runs only if `all_read` is set.
    pub(super) fn fire(&mut self, now: Instant, all_read: bool) {
        let now = self.advance(now);
        // This runs for every frame, and nearly always no timer is due.
        if self.store.timers.next().is_none_or(|due| due > now) {
            return;
        }
        self.expire_calls(now);
        while let Some((timer, due)) = self.store.timers.pop_due(now, all_read) {
            match timer {
                Timer::Settings => self.end(ConnectionError::SettingsTimeout.into()),
                Timer::Drain => self.cut_drain(now),
                Timer::UnreadStall => self.end_fullest(now),
                Timer::RefusalStall => self.end_refusal_stall(),
                Timer::Linger => self.end(EndReason::Drained),
                Timer::Liveness => self.on_liveness(due, now),
                Timer::Cancels => self.store.schedule.cancels.release(),
            }
        }
        self.after_change();
    }

    /// Applies the effects of ended streams: reading may resume, and a drain may be complete.
    pub(super) fn after_change(&mut self) {
        self.update_pause();
        self.finish_drain_if_done();
    }

    /// Ends the calls whose deadline has passed. Each side does so by itself and does not rely on
    /// its peer.
    pub(super) fn expire_calls(&mut self, now: Instant) {
        // A caller that runs this library lets its call expire by itself.
        let reply = match self.store.side {
            Side::Handler if self.peer_knows_drain => Reply::IfRoom,
            _ => Reply::Needed,
        };
        while let Some(id) = self.store.timers.pop_expired_call(now) {
            let error = StreamError::deadline(self.store.side);
            self.store.fail(id, error, reply);
        }
    }

    /// The drain's deadline has passed: ends the calls in flight. The tunnel ends when their ends
    /// are written, or when the time for that is over.
    fn cut_drain(&mut self, now: Instant) {
        if self.drain_cut {
            self.end(EndReason::Drained);
            return;
        }
        self.drain_cut = true;
        if let Some(at) = now.checked_add(LAST_WORDS) {
            self.store.timers.set(Timer::Drain, at);
        }
        for id in self.store.ids() {
            let error = StreamError::new(
                Code::Unavailable,
                "the tunnel's drain reached its deadline",
                Initiator::User,
            );
            self.store.fail(id, error, Reply::Needed);
        }
    }

    /// Begins to drain the tunnel: new calls are refused, calls in flight go on, and when the
    /// last one has finished the tunnel ends with [`EndReason::Drained`]. Calls that are still in
    /// flight at `deadline` end with UNAVAILABLE; the tunnel ends when their ends were sent, or
    /// a second later.
    ///
    /// A peer that understands drain notices is sent one. A second drain can only bring the
    /// deadline forward.
    pub fn drain(&mut self, now: Instant, deadline: Option<Instant>) {
        self.advance(now);
        if matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        if let Some(at) = deadline {
            let at = self
                .store
                .timers
                .get(Timer::Drain)
                .map_or(at, |t| t.min(at));
            self.store.timers.set(Timer::Drain, at);
        }
        if !self.draining {
            self.draining = true;
            self.announce_drain();
        }
        self.finish_drain_if_done();
    }

    /// Asks the peer to replace this tunnel by another one; returns whether the peer understands
    /// that. A handler [drains](Self::drain) the tunnel. A caller only sends the drain notice:
    /// calls can still be made until the caller drains the tunnel.
    pub fn retire(&mut self, now: Instant) -> bool {
        self.advance(now);
        if self.store.side == Side::Handler {
            self.drain(now, None);
        } else {
            self.retiring = true;
            self.announce_drain();
        }
        self.peer_knows_drain
    }

    /// Schedules the drain notice, once, for a peer that understands it.
    pub(super) fn announce_drain(&mut self) {
        let is_due = (self.draining || self.retiring) && !self.drain_announced;
        if is_due && self.phase == Phase::Ready && self.peer_knows_drain {
            self.drain_announced = true;
            self.store.schedule.going_away = Some(self.highest_seen);
            self.send_notice();
        }
    }

    /// Sends a notice, if the peer understands notices. Returns `false` if it does not, or the tunnel has
    /// ended. The notice of a drain must be told before the drain begins.
    ///
    /// A tunnel that is being opened tells it when it is ready. Of notices that were not sent yet, the later
    /// one replaces the fields that it has.
    pub fn tell(&mut self, notice: Notice) -> bool {
        let knows = match self.phase {
            Phase::Opening => true,
            Phase::AwaitingSettings | Phase::Ready => self.knows_notices,
            Phase::Ended(_) => false,
        };
        if knows {
            let scheduled = self.store.schedule.notice.take();
            let untold = scheduled.or(self.untold.take()).unwrap_or_default();
            self.untold.insert(untold).merge(notice);
            self.send_notice();
        }
        knows
    }

    /// Schedules the notice that was told. A caller's first frame announces that it routes calls, so a notice
    /// waits for that, unless the tunnel drains.
    pub(super) fn send_notice(&mut self) {
        if self.phase != Phase::Ready {
            return;
        }
        let announced = !self.ready_is_due || self.store.side == Side::Handler;
        if (announced || self.drain_announced)
            && let Some(notice) = self.untold.take()
            && self.knows_notices
            && *notice != Notice::new()
        {
            self.store.schedule.notice = Some(notice);
        }
    }

    /// Ends a draining tunnel when no call is in flight and no frame waits to be sent.
    pub(super) fn finish_drain_if_done(&mut self) {
        // If the caller drains, it ends the tunnel itself, because calls from it may be in flight.
        if !self.draining && !self.peer_draining {
            return;
        }
        let may_end = self.draining || (self.peer_draining && self.store.side == Side::Caller);
        if may_end
            && self.phase == Phase::Ready
            && (self.store.counts.streams == 0 || self.drain_cut)
            && self.store.schedule.is_empty()
            && !self.lingers()
        {
            self.end(if self.draining {
                EndReason::Drained
            } else {
                EndReason::PeerDrained
            });
        }
    }

    /// Whether a drained tunnel stays open to refuse calls of a peer without drain notices.
    fn lingers(&mut self) -> bool {
        let grace = self.store.config.v.drain_grace;
        if self.store.side == Side::Caller || self.peer_knows_drain || grace.is_zero() {
            return false;
        }
        if !self.store.timers.is_set(Timer::Linger)
            && let Some(at) = self.now.and_then(|now| now.checked_add(grace))
        {
            self.store.timers.set(Timer::Linger, at);
        }
        self.store.timers.is_set(Timer::Linger)
    }

    /// Ends the tunnel now; calls in flight end with UNAVAILABLE.
    pub fn close(&mut self) {
        self.end(EndReason::Closed);
    }

    /// Ends the tunnel now with a status for the peer. With OK it is the same as
    /// [`close`](Self::close).
    pub fn close_with(&mut self, reason: Status) {
        if reason.code == Code::Ok {
            return self.close();
        }
        let reason = self.bounded_status(reason);
        self.end(EndReason::ClosedWith(reason));
    }

    /// The peer has ended the outer call cleanly. Calls in flight end with UNAVAILABLE at the
    /// caller, and are cancelled at the handler.
    pub fn handle_end(&mut self) {
        let drained = self.peer_draining && self.store.counts.streams == 0;
        self.end(if drained {
            EndReason::PeerDrained
        } else {
            EndReason::PeerClosed
        });
    }

    /// The transport has broken, or its bytes cannot be understood.
    pub fn handle_lost(&mut self, error: ConnectionError) {
        self.end(error.into());
    }

    /// Ends the tunnel. Only the first reason counts.
    pub(super) fn end(&mut self, reason: EndReason) {
        if matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        if let EndReason::Error(ConnectionError::Limit(limit)) = reason {
            self.store.counts.limits.count(limit);
        }
        self.phase = Phase::Ended(reason.clone());
        self.store.schedule.clear();
        for id in self.store.stop_announcing() {
            self.store.remove(id);
        }
        let shared = Arc::new(reason.clone());
        for id in self.store.ids() {
            let sent = self.store.get(id).is_none_or(|s| s.send.opening.is_none());
            let error = StreamError::tunnel_ended(&shared, self.store.side, sent);
            self.store.fail(id, error, Reply::None);
        }
        self.store.schedule.clear();
        self.store.timers.clear_all();
        self.store.counts.paused = false;
        self.refusals_pause = false;
        self.store.events.push_back(Event::Ended(reason));
    }
}
