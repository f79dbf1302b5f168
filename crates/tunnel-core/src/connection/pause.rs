//! Pauses: when the tunnel is not read.
//!
//! Two things pause a tunnel until they fall below a lower mark: unread data of revision zero,
//! which has no flow control, and refusals that the peer does not read. Each pause has a timeout.
//! When it passes, the calls with the most unread data end, or the tunnel ends if the peer does not
//! read its refusals.

use std::time::{Duration, Instant};

use super::Connection;
use super::phase::Phase;
use crate::timer::Timer;
use crate::{ConnectionError, Limit};

impl Connection {
    /// Pauses reading above a high mark and resumes it below a low mark.
    pub(super) fn update_pause(&mut self) {
        let counts = &self.store.counts;
        let nothing = counts.unwindowed_unread == 0
            && counts.unwindowed_messages == 0
            && self.store.schedule.refusals.is_empty();
        if nothing && !counts.paused && !self.refusals_pause {
            return;
        }
        if matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        self.update_unread_pause();
        self.update_refusals_pause();
    }

    fn update_unread_pause(&mut self) {
        let (v, counts) = (&self.store.config.v, &mut self.store.counts);
        let above = counts.unwindowed_unread >= v.unread_high_mark
            || counts.unwindowed_messages >= v.unread_high_messages;
        if !counts.paused && above {
            counts.paused = true;
            let timeout = v.unread_stall_timeout;
            self.set_timer(Timer::UnreadStall, timeout);
        } else if counts.paused && self.is_below_low_mark() {
            self.store.counts.paused = false;
            self.store.timers.clear(Timer::UnreadStall);
        }
    }

    fn is_below_low_mark(&self) -> bool {
        let (v, counts) = (&self.store.config.v, &self.store.counts);
        counts.unwindowed_unread <= v.unread_low_mark
            && counts.unwindowed_messages <= v.unread_high_messages / 2
    }

    fn update_refusals_pause(&mut self) {
        let v = &self.store.config.v;
        let (refusals, max) = (&self.store.schedule.refusals, v.max_pending_refusals);
        if !self.refusals_pause && refusals.exceed(max) {
            self.refusals_pause = true;
            let timeout = v.refusal_stall_timeout;
            self.set_timer(Timer::RefusalStall, timeout);
        } else if self.refusals_pause && !refusals.exceed(max / 2 + 1) {
            self.refusals_pause = false;
            self.store.timers.clear(Timer::RefusalStall);
        }
    }

    fn set_timer(&mut self, timer: Timer, after: Duration) {
        if let Some(at) = self.now.and_then(|now| now.checked_add(after)) {
            self.store.timers.set(timer, at);
        }
    }

    /// Reading was paused for revision zero for too long: ends the calls with the most unread data
    /// until reading can resume.
    pub(super) fn end_fullest(&mut self, now: Instant) {
        self.now = Some(now);
        while !self.is_below_low_mark()
            && let Some(id) = self.store.fullest(true)
        {
            self.store.evict(
                id,
                "nobody reads this stream, and it held up the tunnel (revision zero has no flow control)",
            );
        }
        self.update_pause();
        // The data belongs to an incomplete message. Only its remaining frames or the end of its
        // call can release it.
        if self.store.counts.paused && !self.store.timers.is_set(Timer::UnreadStall) {
            let timeout = self.store.config.v.unread_stall_timeout;
            self.set_timer(Timer::UnreadStall, timeout);
        }
    }

    /// Ends the tunnel of a peer that opens calls and does not read their refusals.
    pub(super) fn end_refusal_stall(&mut self) {
        self.end(ConnectionError::Limit(Limit::PendingRefusals).into());
    }
}
