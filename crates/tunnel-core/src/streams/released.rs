//! Buffers that are no longer needed, collected to be dropped without a lock.
//!
//! Dropping a buffer may run code of the application that made it. A runtime that keeps a
//! connection behind a lock takes such buffers out, and drops them after unlocking.

use bytes::Bytes;

use super::queue::Queue;

/// Buffers that a connection no longer needs; from
/// [`Connection::take_released`](crate::Connection::take_released). Dropping them may run code of
/// the applications that made them.
#[derive(Debug, Default)]
pub struct Released(Queue<Bytes>);

/// Where a connection puts buffers that it no longer needs.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// Whether buffers are kept until they are taken out. Otherwise they are dropped here.
    pub(crate) kept: bool,
    released: Released,
}

impl Outgoing {
    pub(crate) fn is_empty(&self) -> bool {
        self.released.0.is_empty()
    }

    pub(crate) fn put(&mut self, buffer: Bytes) {
        // A unique buffer is plain memory. A buffer with a custom owner is never unique.
        if self.kept && !buffer.is_unique() {
            self.released.0.push_back(buffer);
        }
    }

    pub(crate) fn put_all(&mut self, mut buffers: Queue<Bytes>) {
        while let Some(buffer) = buffers.pop_front() {
            self.put(buffer);
        }
    }

    pub(crate) fn take(&mut self) -> Released {
        std::mem::take(&mut self.released)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_buffers_whose_drop_could_run_code_are_kept_and_only_if_asked_for() {
        let owned = || Bytes::from_owner(vec![1]);
        let mut outgoing = Outgoing::default();
        outgoing.put(owned());
        assert!(outgoing.is_empty());
        outgoing.kept = true;
        outgoing.put(Bytes::copy_from_slice(b"plain"));
        assert!(outgoing.is_empty());
        outgoing.put(owned());
        assert!(!outgoing.is_empty());
        drop(outgoing.take());
        assert!(outgoing.is_empty());
    }
}
