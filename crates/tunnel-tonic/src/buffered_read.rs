//! The rest of a read that a body could not hand on at once.
//!
//! It is small when empty, because each idle call has one at each end.

use tunnel_core::Read;

use crate::message::{Gathered, Gatherer};

/// The rest of a read.
#[derive(Debug, Default)]
pub(crate) enum BufferedRead {
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

impl BufferedRead {
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
