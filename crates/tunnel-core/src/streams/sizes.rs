//! Message boundaries: the sizes of the unread messages.

use std::collections::VecDeque;

/// The capacity that a stream keeps when all sizes have been read, in bytes.
const KEEP_SIZES: usize = 64;

/// The sizes of messages that have begun to arrive, one after another, as varints: an
/// unread message costs about a byte beyond its payload.
///
/// The first size is stored separately, because most streams never have a second.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    first: u32,
    #[expect(clippy::box_collection, reason = "most streams never need it")]
    rest: Option<Box<VecDeque<u8>>>,
    /// The number of sizes.
    pub(super) count: usize,
    /// The number of zero sizes.
    pub(super) empty: usize,
}

impl Sizes {
    pub(super) fn push(&mut self, size: u32) {
        self.count += 1;
        self.empty += usize::from(size == 0);
        if self.count == 1 {
            self.first = size;
            return;
        }
        let bytes = self.rest.get_or_insert_default();
        let mut left = size;
        while left >= 0x80 {
            bytes.push_back(left as u8 | 0x80);
            left >>= 7;
        }
        bytes.push_back(left as u8);
    }

    /// The memory of the list, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.rest.as_ref().map_or(0, |rest| rest.capacity())
    }

    pub(super) fn pop(&mut self) -> Option<u32> {
        self.count = self.count.checked_sub(1)?;
        let size = self.first;
        self.empty -= usize::from(size == 0);
        self.first = self.decode();
        if self.count <= 1
            && self
                .rest
                .as_ref()
                .is_some_and(|r| r.capacity() > KEEP_SIZES)
        {
            self.rest = None;
        }
        Some(size)
    }

    /// The next size after the first; zero if there is none.
    fn decode(&mut self) -> u32 {
        let Some(bytes) = &mut self.rest else {
            return 0;
        };
        let mut size = 0;
        let mut shift = 0;
        while let Some(byte) = bytes.pop_front() {
            size |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
            shift += 7;
        }
        size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_back_as_they_went_in() {
        let mut sizes = Sizes::default();
        let all = [0, 1, 127, 128, 16_383, 16_384, u32::MAX, 0];
        for s in all {
            sizes.push(s);
        }
        assert_eq!(sizes.empty, 2);
        for s in all {
            assert_eq!(sizes.pop(), Some(s));
        }
        assert_eq!(sizes.pop(), None);
        assert_eq!((sizes.count, sizes.empty), (0, 0));
    }

    #[test]
    fn sizes_that_were_read_leave_no_room_behind() {
        let mut sizes = Sizes::default();
        let room = |sizes: &Sizes| sizes.rest.as_ref().map_or(0, |rest| rest.capacity());
        for _ in 0..60 {
            sizes.push(1000);
        }
        assert!(room(&sizes) > KEEP_SIZES);
        while sizes.pop().is_some() {}
        assert!(room(&sizes) <= KEEP_SIZES);
    }

    #[test]
    fn the_list_takes_at_most_twice_a_byte_for_each_byte_of_the_messages() {
        for size in [0, 1, 2, 127, 128, 16_384] {
            let mut sizes = Sizes::default();
            for _ in 0..1000 {
                sizes.push(size);
            }
            let room = sizes.rest.as_ref().map_or(0, |rest| rest.capacity());
            assert!(room <= 2 * 1000 * size.max(1) as usize, "{size}: {room}");
        }
    }
}
