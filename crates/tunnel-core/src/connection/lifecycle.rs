//! How a tunnel ends: in order, by a deadline, or not at all in order.

use std::time::{Duration, Instant};

use super::{Connection, Phase};
use crate::event::Event;
use crate::timer::Timer;
use crate::{Code, ConnectionError, EndReason, Initiator, Limit, Side, Status, StreamError};

/// How long after a drain's deadline the transport may take to write the ends of the calls
/// that it cut.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Connection {
    /// Lets everything that is due by `now` happen. To be called at
    /// [`poll_timeout`](Self::poll_timeout); calling it at another time does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.advance(now);
        // Asked for at every frame, and nearly always nothing is due.
        if self.store.timers.next().is_none_or(|due| due > now) {
            return;
        }
        self.expire_calls(now);
        while let Some(timer) = self.store.timers.pop_due(now) {
            match timer {
                Timer::Settings => self.end(ConnectionError::SettingsTimeout.into()),
                Timer::Drain => self.cut_drain(now),
                Timer::UnreadStall => self.end_fullest(now),
            }
        }
        self.after_change();
    }

    /// What may follow from any change: streams that went may let reading go on, or be the last
    /// that a drain has waited for.
    pub(super) fn after_change(&mut self) {
        self.update_pause();
        self.finish_drain_if_done();
    }

    /// Ends the calls whose deadline has passed: each side for itself, so that a peer without
    /// deadlines, or without manners, changes nothing.
    pub(super) fn expire_calls(&mut self, now: Instant) {
        while let Some(id) = self.store.timers.pop_expired_call(now) {
            let error = StreamError::deadline(self.store.side);
            let failed = self.store.fail(id, error, true);
            self.end_on_limit(failed);
        }
    }

    /// The drain's deadline: ends what is in flight, and the tunnel when that was said or could
    /// not be said in time.
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
            let failed = self.store.fail(id, error, true);
            self.end_on_limit(failed);
        }
    }

    /// Revision zero has stood still for too long: the stream that holds most of what nobody
    /// reads is ended, so that the others can go on.
    fn end_fullest(&mut self, now: Instant) {
        if let Some(id) = self.store.fullest(true) {
            let evicted = self.store.evict(
                id,
                "nobody reads this stream, and it held up the tunnel (revision zero has no flow control)",
            );
            self.end_on_limit(evicted);
        }
        self.update_pause();
        if self.store.counts.paused && !self.store.timers.is_set(Timer::UnreadStall) {
            let timeout = self.store.config.v.unread_stall_timeout;
            if let Some(at) = now.checked_add(timeout) {
                self.store.timers.set(Timer::UnreadStall, at);
            }
        }
    }

    pub(super) fn end_on_limit(&mut self, result: Result<(), Limit>) {
        if let Err(limit) = result {
            self.end(ConnectionError::Limit(limit).into());
        }
    }

    /// Begins to end the tunnel in order: new calls are refused, calls in flight go on, and
    /// when the last has finished the tunnel ends with [`EndReason::Drained`]. What is still in
    /// flight at `deadline` ends with UNAVAILABLE; the tunnel then ends when its calls were told,
    /// or a second later.
    ///
    /// The peer is told, where it understands. A second drain can only bring the deadline
    /// forward.
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

    /// Schedules the word of the drain for a peer that understands it.
    pub(super) fn announce_drain(&mut self) {
        if self.draining && self.phase == Phase::Ready && self.peer_knows_drain {
            self.store.schedule.going_away = Some(self.highest_seen);
        }
    }

    /// Ends a draining tunnel once nothing is in flight and nothing is left to say.
    pub(super) fn finish_drain_if_done(&mut self) {
        // A handler leaves the end to a caller that drains: calls may be under way from it.
        if !self.draining && !self.peer_draining {
            return;
        }
        let may_end = self.draining || (self.peer_draining && self.store.side == Side::Caller);
        if may_end
            && self.phase == Phase::Ready
            && (self.store.counts.streams == 0 || self.drain_cut)
            && self.store.schedule.is_empty()
        {
            self.end(if self.draining {
                EndReason::Drained
            } else {
                EndReason::PeerDrained
            });
        }
    }

    /// Ends the tunnel now; calls in flight end with UNAVAILABLE.
    pub fn close(&mut self) {
        self.end(EndReason::Closed);
    }

    /// Ends the tunnel now and says why. OK is no reason: the same as [`close`](Self::close).
    pub fn close_with(&mut self, reason: Status) {
        if reason.code == Code::Ok {
            return self.close();
        }
        let reason = self.bounded_status(reason);
        self.end(EndReason::ClosedWith(reason));
    }

    /// The peer has ended the outer call in order. Calls in flight end with UNAVAILABLE at the
    /// caller, and are cancelled at the handler.
    pub fn handle_end(&mut self) {
        let drained = self.peer_draining && self.store.counts.streams == 0;
        self.end(if drained {
            EndReason::PeerDrained
        } else {
            EndReason::PeerClosed
        });
    }

    /// The transport has broken, or carries what cannot be understood.
    pub fn handle_lost(&mut self, error: ConnectionError) {
        self.end(error.into());
    }

    /// Ends the tunnel for one reason; the first reason stands.
    pub(super) fn end(&mut self, reason: EndReason) {
        if matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        tracing::debug!(%reason, streams = self.store.counts.streams, "tunnel ended");
        self.phase = Phase::Ended(reason.clone());
        self.store.schedule.clear();
        for id in self.store.ids() {
            let sent = self.store.get(id).is_none_or(|s| s.send.opening.is_none());
            let error = StreamError::tunnel_ended(&reason, self.store.side, sent);
            // Without a reply there is nothing that could reach a limit.
            let failed = self.store.fail(id, error, false);
            debug_assert!(failed.is_ok(), "ending a stream in silence has no limit");
        }
        self.store.schedule.clear();
        self.store.timers.clear_all();
        self.store.counts.paused = false;
        self.store.events.push_back(Event::Ended(reason));
    }
}
