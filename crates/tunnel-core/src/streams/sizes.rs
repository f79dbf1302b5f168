//! Message boundaries: the sizes of the unread messages, and whether they are compressed.

use std::collections::VecDeque;

use super::body::Begin;

/// The capacity that a stream keeps when all sizes have been read, in bytes.
const KEEP_SIZES: usize = 64;

/// The beginnings of messages that have begun to arrive, one after another, as varints of the size
/// with the flag below it: an unread message costs about a byte beyond its payload.
///
/// The first size is stored separately, because most streams never have a second.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    first: Begin,
    #[expect(clippy::box_collection, reason = "most streams never need it")]
    rest: Option<Box<VecDeque<u8>>>,
    /// The number of sizes.
    pub(super) count: usize,
    /// The number of zero sizes.
    pub(super) empty: usize,
}

impl Sizes {
    pub(super) fn push(&mut self, begin: Begin) {
        self.count += 1;
        self.empty += usize::from(begin.size == 0);
        if self.count == 1 {
            self.first = begin;
            return;
        }
        let bytes = self.rest.get_or_insert_default();
        let mut left = u64::from(begin.size) << 1 | u64::from(begin.compressed);
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

    pub(super) fn pop(&mut self) -> Option<Begin> {
        self.count = self.count.checked_sub(1)?;
        let first = self.first;
        self.empty -= usize::from(first.size == 0);
        self.first = self.decode();
        if self.count <= 1
            && self
                .rest
                .as_ref()
                .is_some_and(|r| r.capacity() > KEEP_SIZES)
        {
            self.rest = None;
        }
        Some(first)
    }

    /// The next beginning after the first; the default if there is none.
    fn decode(&mut self) -> Begin {
        let Some(bytes) = &mut self.rest else {
            return Begin::default();
        };
        let mut both = 0;
        let mut shift = 0;
        while let Some(byte) = bytes.pop_front() {
            both |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
            shift += 7;
        }
        Begin {
            size: (both >> 1) as u32,
            compressed: both & 1 == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_back_as_they_went_in() {
        let mut sizes = Sizes::default();
        let all = [0, 1, 63, 64, 8191, 8192, u32::MAX, 0];
        let flags = [false, true].into_iter().cycle().skip(1);
        let all = all.into_iter().zip(flags);
        let all = all.map(|(size, compressed)| Begin { size, compressed });
        for begin in all.clone() {
            sizes.push(begin);
        }
        assert_eq!(sizes.empty, 2);
        for begin in all {
            assert_eq!(sizes.pop(), Some(begin));
        }
        assert_eq!(sizes.pop(), None);
        assert_eq!((sizes.count, sizes.empty), (0, 0));
    }

    #[test]
    fn sizes_that_were_read_leave_no_room_behind() {
        let mut sizes = Sizes::default();
        let room = |sizes: &Sizes| sizes.rest.as_ref().map_or(0, |rest| rest.capacity());
        for _ in 0..60 {
            sizes.push(Begin::plain(1000));
        }
        assert!(room(&sizes) > KEEP_SIZES);
        while sizes.pop().is_some() {}
        assert!(room(&sizes) <= KEEP_SIZES);
    }

    #[test]
    fn the_list_takes_at_most_twice_a_byte_for_each_byte_of_the_messages() {
        for size in [0, 1, 2, 63, 64, 16_384] {
            let mut sizes = Sizes::default();
            for _ in 0..1000 {
                sizes.push(Begin::plain(size));
            }
            let room = sizes.rest.as_ref().map_or(0, |rest| rest.capacity());
            assert!(room <= 2 * 1000 * size.max(1) as usize, "{size}: {room}");
        }
    }
}
