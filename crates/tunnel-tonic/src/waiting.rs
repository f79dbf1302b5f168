//! The queue of calls that wait because the stream limit is reached.
//!
//! First come, first served. When a place is free, the first call in the queue is woken, and the
//! place is reserved for it until it opens or is dropped. Therefore no later call overtakes it, and
//! no more calls are woken than places are free.

use std::collections::{BTreeMap, BTreeSet};
use std::task::Waker;
use std::time::Instant;

/// The waiting calls of one tunnel, by ticket. A lower ticket came earlier.
#[derive(Debug, Default)]
pub(crate) struct WaitQueue {
    waiting: BTreeMap<u64, Waiting>,
    /// The calls that were woken and have a reserved place.
    turns: BTreeSet<u64>,
    deadlines: BTreeSet<(Instant, u64)>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Waiting {
    waker: Waker,
    deadline: Option<Instant>,
}

/// The state of a waiting call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The call may open now.
    Now,
    /// The call must wait.
    Later,
    /// Its deadline has passed.
    Expired,
}

impl WaitQueue {
    /// The number of reserved places.
    pub(crate) fn kept(&self) -> usize {
        self.turns.len()
    }

    /// Whether a call waits.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Puts a call at the end of the queue.
    pub(crate) fn join(&mut self, waker: Waker, deadline: Option<Instant>) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.insert(ticket, Waiting { waker, deadline });
        ticket
    }

    fn insert(&mut self, ticket: u64, waiting: Waiting) {
        if let Some(at) = waiting.deadline {
            self.deadlines.insert((at, ticket));
        }
        self.waiting.insert(ticket, waiting);
    }

    /// Returns the state of a call, and registers its waker if it must wait. Also returns the waker
    /// that was replaced, to be dropped without the lock.
    pub(crate) fn poll(&mut self, ticket: u64, waker: &Waker) -> (Turn, Option<Waker>) {
        if self.turns.remove(&ticket) {
            return (Turn::Now, None);
        }
        let Some(waiting) = self.waiting.get_mut(&ticket) else {
            return (Turn::Expired, None);
        };
        let stale = !waiting.waker.will_wake(waker);
        let replaced = stale.then(|| std::mem::replace(&mut waiting.waker, waker.clone()));
        (Turn::Later, replaced)
    }

    /// Puts a woken call that could not open back to its position.
    pub(crate) fn put_back(&mut self, ticket: u64, waker: Waker, deadline: Option<Instant>) {
        self.insert(ticket, Waiting { waker, deadline });
    }

    /// Removes a call and its reserved place. Returns its waker, to be dropped without the lock.
    pub(crate) fn leave(&mut self, ticket: u64) -> Option<Waker> {
        self.turns.remove(&ticket);
        let waiting = self.waiting.remove(&ticket)?;
        if let Some(at) = waiting.deadline {
            self.deadlines.remove(&(at, ticket));
        }
        Some(waiting.waker)
    }

    /// The waker of the next call, if fewer than `room` places are reserved.
    pub(crate) fn next_turn(&mut self, room: usize) -> Option<Waker> {
        if self.turns.len() >= room {
            return None;
        }
        let (&ticket, _) = self.waiting.first_key_value()?;
        let waker = self.leave(ticket);
        self.turns.insert(ticket);
        waker
    }

    /// The earliest deadline of a waiting call.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// Removes a call whose deadline has passed, and returns its waker.
    pub(crate) fn next_expired(&mut self, now: Instant) -> Option<Waker> {
        let &(at, ticket) = self.deadlines.first()?;
        if at > now {
            return None;
        }
        self.leave(ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn joined(queue: &mut WaitQueue, calls: usize) -> Vec<u64> {
        let join = |_| queue.join(Waker::noop().clone(), None);
        (0..calls).map(join).collect()
    }

    fn turn(queue: &mut WaitQueue, ticket: u64) -> Turn {
        queue.poll(ticket, Waker::noop()).0
    }

    fn woken(queue: &mut WaitQueue, room: usize) -> usize {
        std::iter::from_fn(|| queue.next_turn(room)).count()
    }

    #[test]
    fn calls_are_served_in_the_order_in_which_they_came_and_no_more_than_there_is_room_for() {
        let mut queue = WaitQueue::default();
        let tickets = joined(&mut queue, 5);
        assert_eq!(woken(&mut queue, 2), 2);
        assert_eq!(woken(&mut queue, 2), 0);
        assert_eq!(queue.kept(), 2);
        assert_eq!(turn(&mut queue, tickets[2]), Turn::Later);
        assert_eq!(turn(&mut queue, tickets[1]), Turn::Now);
        assert_eq!(turn(&mut queue, tickets[0]), Turn::Now);
        assert_eq!(queue.kept(), 0);
        assert_eq!(woken(&mut queue, usize::MAX), 3);
        assert!(!queue.is_waiting());
    }

    #[test]
    fn a_call_that_leaves_gives_up_its_turn() {
        let mut queue = WaitQueue::default();
        let tickets = joined(&mut queue, 3);
        assert_eq!(woken(&mut queue, 1), 1);
        assert!(queue.leave(tickets[1]).is_some());
        assert!(queue.leave(tickets[0]).is_none());
        assert_eq!(woken(&mut queue, 1), 1);
        assert_eq!(turn(&mut queue, tickets[2]), Turn::Now);
    }

    #[test]
    fn a_call_that_is_put_back_is_served_next() {
        let mut queue = WaitQueue::default();
        let tickets = joined(&mut queue, 2);
        assert_eq!(woken(&mut queue, 1), 1);
        assert_eq!(turn(&mut queue, tickets[0]), Turn::Now);
        queue.put_back(tickets[0], Waker::noop().clone(), None);
        assert_eq!(woken(&mut queue, 1), 1);
        assert_eq!(turn(&mut queue, tickets[1]), Turn::Later);
        assert_eq!(turn(&mut queue, tickets[0]), Turn::Now);
    }

    #[test]
    fn deadlines_pass_in_their_own_order_and_leave_nothing_behind() {
        let mut queue = WaitQueue::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut join = |seconds| queue.join(Waker::noop().clone(), Some(at(seconds)));
        let (late, early, served) = (join(3), join(1), join(2));
        assert_eq!(queue.next_deadline(), Some(at(1)));
        assert!(queue.next_expired(at(0)).is_none());
        assert!(queue.next_expired(at(1)).is_some());
        assert!(queue.next_expired(at(1)).is_none());
        assert_eq!(turn(&mut queue, early), Turn::Expired);
        assert_eq!(turn(&mut queue, late), Turn::Later);
        assert_eq!(woken(&mut queue, usize::MAX), 2);
        assert_eq!(queue.next_deadline(), None);
        assert_eq!(turn(&mut queue, served), Turn::Now);
    }
}
