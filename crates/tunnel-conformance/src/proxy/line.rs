//! The queue of bytes in flight in one direction.
//!
//! Invariants: the queue is first in, first out, even if delivery times are not in order. It never
//! has more than [`CAPACITY`] bytes.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use tokio::time::Instant;

/// The most bytes in flight.
pub(super) const CAPACITY: usize = 64 << 20;

/// The content of a parcel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cargo {
    /// Never empty.
    Bytes(Bytes),
    /// The sender has closed its half.
    End,
    /// The sender's connection is lost.
    Reset,
}

#[derive(Debug)]
pub(super) struct Parcel {
    /// The earliest time of delivery.
    pub(super) due: Instant,
    pub(super) cargo: Cargo,
}

#[derive(Debug, Default)]
pub(super) struct Line {
    parcels: VecDeque<Parcel>,
    held: usize,
}

impl Line {
    /// How many more bytes fit.
    pub(super) fn room(&self) -> usize {
        CAPACITY - self.held
    }

    pub(super) fn push(&mut self, due: Instant, cargo: Cargo) {
        if let Cargo::Bytes(bytes) = &cargo {
            debug_assert!(bytes.len() <= self.room(), "the reader heeds the room");
            self.held += bytes.len();
        }
        self.parcels.push_back(Parcel { due, cargo });
    }

    /// The next parcel to deliver.
    pub(super) fn first(&self) -> Option<&Parcel> {
        self.parcels.front()
    }

    /// Removes `count` delivered bytes from the first parcel, and the parcel if it is empty then.
    pub(super) fn delivered(&mut self, count: usize) {
        let Some(parcel) = self.parcels.front_mut() else {
            return;
        };
        if let Cargo::Bytes(bytes) = &mut parcel.cargo {
            self.held -= count;
            bytes.advance(count);
            if bytes.has_remaining() {
                return;
            }
        }
        self.parcels.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_due_earlier_does_not_overtake() {
        let mut line = Line::default();
        let now = Instant::now();
        line.push(now + Duration::from_secs(9), Cargo::Bytes("late".into()));
        line.push(now, Cargo::End);
        assert_eq!(line.first().unwrap().cargo, Cargo::Bytes("late".into()));
        line.delivered(1);
        assert_eq!(line.first().unwrap().cargo, Cargo::Bytes("ate".into()));
        line.delivered(3);
        assert_eq!(line.first().unwrap().cargo, Cargo::End);
        line.delivered(0);
        assert!(line.first().is_none());
    }

    #[test]
    fn room_is_what_the_bytes_under_way_leave() {
        let mut line = Line::default();
        assert_eq!(line.room(), CAPACITY);
        line.push(Instant::now(), Cargo::Bytes("12345".into()));
        line.push(Instant::now(), Cargo::Bytes("678".into()));
        assert_eq!(line.room(), CAPACITY - 8);
        line.delivered(4);
        assert_eq!(line.room(), CAPACITY - 4);
        line.delivered(1);
        line.delivered(3);
        assert_eq!(line.room(), CAPACITY);
    }
}
