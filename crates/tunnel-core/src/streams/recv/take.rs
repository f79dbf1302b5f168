//! Reading from a receiving half: pieces of messages, whole messages, or a body.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

use super::{COPY_BELOW, Front, RecvHalf};
use crate::frame::framing::PREFIX_LEN;
use crate::streams::body::{self, Begin};
use crate::streams::released::Outgoing;

/// A large message is handed on only when this part of it has arrived, because its reader reserves
/// memory for all of it.
pub(in crate::streams) const RELEASE_PART: usize = 4;

/// A piece of a message, or a whole small message.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Chunk {
    /// The size of the message, if it begins with this piece, in bytes.
    pub begins: Option<u32>,
    /// Whether the message is compressed; [`SendStream::body`](crate::SendStream::body) sends such
    /// messages.
    pub compressed: bool,
    /// The payload. Empty only for an empty message.
    pub data: Bytes,
    /// Whether this piece is the last one of the message.
    pub ends: bool,
}

/// Shows the length of the payload, not the payload, which must not be logged.
impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk")
            .field("begins", &self.begins)
            .field("compressed", &self.compressed)
            .field("len", &self.data.len())
            .field("ends", &self.ends)
            .finish()
    }
}

/// Counts of the data taken out of a receiving half.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    /// Payload, in bytes, prefixes not counted.
    pub(crate) bytes: usize,
    /// Messages whose first byte was taken.
    pub(crate) begun: usize,
    /// Messages taken to their end.
    pub(crate) ended: usize,
    /// Those of them that are empty.
    pub(crate) empty: usize,
}

impl Taken {
    /// The position of a piece in its message.
    pub(crate) fn chunk(chunk: &Chunk) -> Self {
        Self {
            bytes: chunk.data.len(),
            begun: usize::from(chunk.begins.is_some()),
            ended: usize::from(chunk.ends),
            empty: usize::from(chunk.begins == Some(0)),
        }
    }
}

/// The result of [`RecvHalf::next_body`].
#[derive(Debug, Default)]
pub(crate) struct Moved {
    pub(crate) taken: Taken,
    /// A large piece that follows the copied data.
    pub(crate) slice: Option<Bytes>,
    /// Whether there may be more to move now.
    pub(crate) more: bool,
}

impl RecvHalf {
    /// The message at the front and how much of it may be handed on now; `None` if nothing may.
    fn releasable(&mut self, large: usize) -> Option<(Front, usize)> {
        if self.front.is_none() {
            let Begin { size, compressed } = self.sizes.pop()?;
            self.front = Some(Front {
                size,
                compressed,
                read: 0,
                begun: false,
            });
        }
        let front = self.front?;
        let left = (front.size - front.read) as usize;
        // Messages arrive in order: if a later one has begun, this one is complete.
        let missing = if self.sizes.count == 0 {
            self.arriving as usize
        } else {
            0
        };
        let arrived = left - missing;
        let size = front.size as usize;
        let enough = front.begun || size <= large || arrived >= size / RELEASE_PART;
        let something = arrived > 0 || (size == 0 && !front.begun);
        (enough && something).then_some((front, arrived))
    }

    /// Takes the next piece. `large` is the size above which a message is held back until
    /// enough of it has arrived.
    pub(crate) fn next_chunk(&mut self, large: usize) -> Option<Chunk> {
        let (mut front, arrived) = self.releasable(large)?;
        let data = self.take_slice(arrived);
        self.unread -= data.len();
        let begins = (!front.begun).then_some(front.size);
        front.begun = true;
        front.read += data.len() as u32;
        let ends = front.read == front.size;
        self.front = (!ends).then_some(front);
        let compressed = front.compressed;
        Some(Chunk {
            begins,
            compressed,
            data,
            ends,
        })
    }

    fn take_slice(&mut self, at_most: usize) -> Bytes {
        if at_most == 0 {
            return Bytes::new();
        }
        if self.slices.is_empty() {
            self.flush_small();
        }
        let Some(first) = self.slices.front_mut() else {
            debug_assert!(false, "what counts as arrived is there");
            return Bytes::new();
        };
        if first.len() > at_most {
            return first.split_to(at_most);
        }
        self.slices.pop_front().unwrap_or_default()
    }

    /// Moves readable data to a body until it has `limit` bytes or more. Stops at a large piece,
    /// which is not copied.
    pub(crate) fn next_body(
        &mut self,
        large: usize,
        limit: usize,
        buf: &mut BytesMut,
        out: &mut Outgoing,
    ) -> Moved {
        let mut moved = Moved::default();
        while let Some((front, arrived)) = self.releasable(large) {
            if buf.len() >= limit {
                moved.more = true;
                break;
            }
            let begins = !front.begun;
            if begins {
                self.reserve_body(buf, limit);
                let Front {
                    size, compressed, ..
                } = front;
                body::put_prefix(buf, Begin { size, compressed });
            }
            let (bytes, slice) = self.move_payload(arrived, buf, out);
            self.unread -= bytes;
            let front = Front {
                begun: true,
                read: front.read + bytes as u32,
                ..front
            };
            let ends = front.read == front.size;
            self.front = (!ends).then_some(front);
            moved.taken.bytes += bytes;
            moved.taken.begun += usize::from(begins);
            moved.taken.ended += usize::from(ends);
            moved.taken.empty += usize::from(front.size == 0);
            if slice.is_some() {
                moved.slice = slice;
                moved.more = true;
                break;
            }
        }
        moved
    }

    /// Reserves space for the data that can be moved now, so that the buffer does not grow step by
    /// step.
    fn reserve_body(&self, buf: &mut BytesMut, limit: usize) {
        if buf.capacity() - buf.len() < PREFIX_LEN + COPY_BELOW {
            let messages = self.unread_messages();
            let all = self.unread.saturating_add(PREFIX_LEN * messages);
            // The last message may reach beyond the limit.
            buf.reserve(all.min(limit + PREFIX_LEN + COPY_BELOW));
        }
    }

    /// Moves up to `at_most` bytes of payload: copies small pieces, and stops at a large one,
    /// which it takes out.
    fn move_payload(
        &mut self,
        at_most: usize,
        buf: &mut BytesMut,
        out: &mut Outgoing,
    ) -> (usize, Option<Bytes>) {
        let mut left = at_most;
        while left > 0 {
            let Some(first) = self.slices.front_mut() else {
                let part = left.min(self.small.len());
                debug_assert!(part > 0, "what counts as arrived is there");
                buf.extend_from_slice(&self.small[..part]);
                self.small.advance(part);
                if self.small.is_empty() {
                    // An idle stream keeps no buffer.
                    self.small = BytesMut::new();
                }
                left -= part;
                if part == 0 {
                    break;
                }
                continue;
            };
            let part = left.min(first.len());
            if part >= COPY_BELOW {
                let slice = self.take_slice(part);
                return (at_most - left + part, Some(slice));
            }
            buf.extend_from_slice(&first[..part]);
            first.advance(part);
            if first.is_empty()
                && let Some(copied) = self.slices.pop_front()
            {
                out.put(copied);
            }
            left -= part;
        }
        (at_most - left, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::streams::flow::RecvWindow;

    fn half(window: u32) -> RecvHalf {
        RecvHalf::new(Some(RecvWindow::new(window)), 0, false)
    }

    #[test]
    fn data_that_was_read_leaves_no_buffer_behind() {
        let config = Config::default();
        let mut r = half(65_536);
        for _ in 0..60 {
            r.begin(Begin::plain(1000), Bytes::from(vec![1; 1000]), &config)
                .expect("fits");
        }
        while r.next_chunk(65_536).is_some() {}
        assert_eq!(r.small.capacity(), 0);
        assert!(r.slices.capacity() <= 8);
    }

    #[test]
    fn a_large_message_is_held_until_a_quarter_of_it_has_arrived() {
        let config = Config::default();
        let mut r = half(1 << 20);
        r.begin(Begin::plain(400), Bytes::from(vec![1; 99]), &config)
            .expect("fits");
        assert_eq!(r.next_chunk(399), None);
        assert!(r.unread_messages() == 1 && r.unread() == 99);
        r.more(Bytes::from(vec![1; 1])).expect("fits");
        let chunk = r.next_chunk(399).expect("a quarter is there");
        assert_eq!(
            (chunk.begins, chunk.data.len(), chunk.ends),
            (Some(400), 100, false)
        );
        r.more(Bytes::from(vec![1; 1])).expect("fits");
        let chunk = r.next_chunk(399).expect("goes on as it arrives");
        assert_eq!((chunk.begins, chunk.data.len()), (None, 1));
    }
}
