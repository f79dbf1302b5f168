//! The body of a gRPC call: messages, each with a prefix of five bytes, a flag (1 if the message is
//! compressed, otherwise 0) and the length.
//!
//! gRPC applications have their messages in this layout and want them back in it. Therefore the
//! small messages of a body share one queue entry, and are copied together once when they are read.

use bytes::BufMut;

use crate::WriteError;
use crate::frame::framing::PREFIX_LEN;

/// The beginning of a message: what its prefix says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Begin {
    pub(crate) size: u32,
    pub(crate) compressed: bool,
}

impl Begin {
    /// The beginning of a message that is not compressed.
    pub(crate) fn plain(size: u32) -> Self {
        Self {
            size,
            compressed: false,
        }
    }

    pub(crate) fn of(prefix: [u8; PREFIX_LEN]) -> Result<Self, WriteError> {
        let [flag, a, b, c, d] = prefix;
        let size = u32::from_be_bytes([a, b, c, d]);
        match flag {
            0 => Ok(Self::plain(size)),
            1 => Ok(Self {
                size,
                compressed: true,
            }),
            flags => Err(WriteError::Flags(flags)),
        }
    }
}

/// The size of the message behind the prefix of one that is not compressed.
pub(crate) fn plain_size(prefix: [u8; PREFIX_LEN]) -> Option<u32> {
    let [flag, a, b, c, d] = prefix;
    (flag == 0).then(|| u32::from_be_bytes([a, b, c, d]))
}

/// The number of bytes at the front of `body` that are whole messages; may be zero. Stops before a
/// compressed message.
pub(crate) fn whole_messages(body: &[u8]) -> usize {
    let mut end = 0;
    while let Some(prefix) = body[end..].first_chunk()
        && let Some(size) = plain_size(*prefix)
    {
        let next = end.saturating_add(PREFIX_LEN).saturating_add(size as usize);
        if next > body.len() {
            break;
        }
        end = next;
    }
    end
}

/// Writes the prefix of a message.
pub(crate) fn put_prefix(buf: &mut impl BufMut, begin: Begin) {
    let [a, b, c, d] = begin.size.to_be_bytes();
    buf.put_slice(&[begin.compressed.into(), a, b, c, d]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_messages_are_counted_up_to_one_that_is_cut_or_compressed() {
        let mut body = Vec::new();
        for size in [0, 3, 300] {
            put_prefix(&mut body, Begin::plain(size));
            body.resize(body.len() + size as usize, 7);
        }
        assert_eq!(whole_messages(&body), body.len());
        assert_eq!(whole_messages(&body[..body.len() - 1]), 13);
        assert_eq!(whole_messages(&body[..12]), 5);
        assert_eq!(whole_messages(&body[..4]), 0);
        let whole = body.len();
        body.extend_from_slice(&[1, 0, 0, 0, 0]);
        assert_eq!(whole_messages(&body), whole);
        let compressed = Begin::of([1, 0, 0, 0, 9]).expect("known flags");
        assert_eq!((compressed.size, compressed.compressed), (9, true));
        assert_eq!(Begin::of([2, 0, 0, 0, 0]), Err(WriteError::Flags(2)));
    }
}
