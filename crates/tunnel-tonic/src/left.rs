//! What one read of a stream found beyond what a body could hand on at once.
//!
//! Kept in few bytes, because an idle call keeps a place for it at each end: with the [`Gatherer`]
//! itself there, both bodies together took 352 bytes; without it, 96. A call with one message
//! each way pays for it with one box, for the end of its response.

use tunnel_core::Read;

use crate::message::{Gathered, Gatherer};

/// What is left of a read.
#[derive(Debug, Default)]
pub(crate) enum Left {
    #[default]
    Nothing,
    /// The most common end of a request.
    HalfClosed,
    More(Box<More>),
}

/// The next thing, and whatever comes behind it.
#[derive(Debug)]
pub(crate) struct More {
    next: Gathered,
    rest: Gatherer,
}

impl Left {
    /// Keeps what a gatherer has left.
    fn of(mut gatherer: Gatherer) -> Self {
        match gatherer.next_ready() {
            None => Self::Nothing,
            Some(Gathered::End(Read::HalfClosed)) => Self::HalfClosed,
            Some(next) => Self::More(Box::new(More {
                next,
                rest: gatherer,
            })),
        }
    }

    /// The next of it or, if there is nothing, what a read finds; the rest is kept. Without a read
    /// there is no need for a lock.
    pub(crate) fn next_or(&mut self, read: impl FnOnce(&mut Gatherer) -> Gathered) -> Gathered {
        if let Some(ready) = self.take() {
            return ready;
        }
        let mut gatherer = Gatherer::default();
        let found = read(&mut gatherer);
        *self = Self::of(gatherer);
        found
    }

    fn take(&mut self) -> Option<Gathered> {
        match std::mem::take(self) {
            Self::Nothing => None,
            Self::HalfClosed => Some(Gathered::End(Read::HalfClosed)),
            Self::More(more) => {
                let More { next, rest } = *more;
                *self = Self::of(rest);
                Some(next)
            }
        }
    }
}
