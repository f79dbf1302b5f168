//! Messages that are read whole, while they arrive.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use super::hash::StreamIdHash;
use super::recv::{Chunk, RELEASE_PART};
use super::released::Outgoing;

/// The beginnings of messages, by stream. They are not part of the streams, because few streams
/// have one and idle streams should be small.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    partial: HashMap<i64, BytesMut, StreamIdHash>,
}

impl Assembly {
    /// Adds the next piece of a message; returns the message when it is whole. A message of one
    /// piece is not copied. `unread` is what the stream holds beyond the piece, in bytes.
    pub(crate) fn add(
        &mut self,
        id: i64,
        piece: Chunk,
        unread: usize,
        out: &mut Outgoing,
    ) -> Option<Bytes> {
        if piece.begins.is_some() && piece.ends {
            return Some(piece.data);
        }
        let partial = self.partial.entry(id).or_default();
        if let Some(size) = piece.begins {
            // The stream usually holds a message back until a quarter of it has arrived, so memory
            // for all of it is reserved. With less, the buffer grows as the message arrives.
            let most = RELEASE_PART.saturating_mul(piece.data.len() + unread);
            partial.reserve((size as usize).min(most));
        }
        partial.extend_from_slice(&piece.data);
        out.put(piece.data);
        if !piece.ends {
            return None;
        }
        self.partial.remove(&id).map(BytesMut::freeze)
    }

    /// The stream has gone.
    pub(crate) fn forget(&mut self, id: i64) {
        if !self.partial.is_empty() {
            self.partial.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(begins: Option<u32>, data: Bytes, ends: bool) -> Chunk {
        Chunk {
            begins,
            compressed: false,
            data,
            ends,
        }
    }

    #[test]
    fn pieces_become_a_message_and_a_declared_size_allocates_nothing() {
        let (mut assembly, mut out) = (Assembly::default(), Outgoing::default());
        let whole = piece(Some(2), Bytes::from_static(b"ab"), true);
        let at = whole.data.as_ptr();
        let message = assembly.add(1, whole, 0, &mut out).expect("whole");
        assert_eq!(message.as_ptr(), at, "not copied");

        let first = piece(Some(u32::MAX), Bytes::from(vec![1; 100]), false);
        assert_eq!(assembly.add(1, first, 0, &mut out), None);
        assert!(assembly.partial[&1].capacity() <= 400);
        let other = piece(Some(6), Bytes::from_static(b"abc"), false);
        assert_eq!(assembly.add(2, other, 3, &mut out), None);
        let rest = piece(None, Bytes::from_static(b"def"), true);
        let message = assembly.add(2, rest, 0, &mut out).expect("whole");
        assert_eq!(message, "abcdef");

        assembly.forget(1);
        assert!(assembly.partial.is_empty());
    }
}
