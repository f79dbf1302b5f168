//! A queue whose first item needs no allocation, since most streams carry one message each way.

use std::collections::VecDeque;

/// First in, first out.
///
/// Invariant: `rest` is empty when `first` is.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    first: Option<T>,
    #[expect(
        clippy::box_collection,
        reason = "every stream has several queues, and few have a second item"
    )]
    rest: Option<Box<VecDeque<T>>>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            first: None,
            rest: None,
        }
    }
}

impl<T> Queue<T> {
    /// The capacity that a queue keeps when it becomes empty, so that an active stream need not
    /// allocate and an idle one holds little memory.
    const KEEP: usize = 8;

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.as_ref().map_or(0, |rest| rest.len())
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn push_back(&mut self, item: T) {
        match self.first {
            None => self.first = Some(item),
            Some(_) => self.rest.get_or_insert_default().push_back(item),
        }
    }

    pub(crate) fn front(&self) -> Option<&T> {
        self.first.as_ref()
    }

    pub(crate) fn front_mut(&mut self) -> Option<&mut T> {
        self.first.as_mut()
    }

    pub(crate) fn pop_front(&mut self) -> Option<T> {
        let first = self.first.take();
        if let Some(rest) = &mut self.rest {
            self.first = rest.pop_front();
            if rest.is_empty() && rest.capacity() > Self::KEEP {
                self.rest = None;
            }
        }
        first
    }

    /// How many places are kept beyond the first.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.rest.as_ref().map_or(0, |rest| rest.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_out_in_the_order_in_which_they_went_in() {
        let mut queue = Queue::default();
        for round in 0..3 {
            for i in 0..20 {
                queue.push_back((round, i));
            }
            for i in 0..20 {
                assert_eq!(queue.front(), Some(&(round, i)));
                assert_eq!(queue.pop_front(), Some((round, i)));
            }
            assert!(queue.is_empty() && queue.pop_front().is_none());
        }
    }

    #[test]
    fn one_item_needs_no_memory_and_an_empty_queue_keeps_little() {
        let mut queue = Queue::default();
        queue.push_back(1);
        assert_eq!(queue.capacity(), 0);
        for i in 0..100 {
            queue.push_back(i);
        }
        while queue.pop_front().is_some() {}
        assert!(queue.capacity() <= Queue::<i32>::KEEP);
    }
}
