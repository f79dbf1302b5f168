//! The body of a gRPC call: messages, each with a prefix of five bytes, a flag (0 for not compressed)
//! and the length.
//!
//! gRPC applications have their messages in this layout and want them back in it. Therefore the
//! small messages of a body share one queue entry, and are copied together once when they are read.

use bytes::BufMut;

use crate::WriteError;
use crate::frame::framing::PREFIX_LEN;

/// The size of the message behind a prefix.
pub(crate) fn size_of(prefix: [u8; PREFIX_LEN]) -> Result<u32, WriteError> {
    let [flag, a, b, c, d] = prefix;
    match flag {
        0 => Ok(u32::from_be_bytes([a, b, c, d])),
        _ => Err(WriteError::Compressed),
    }
}

/// The number of bytes at the front of `body` that are whole messages; may be zero. Stops before a
/// compressed message.
pub(crate) fn whole_messages(body: &[u8]) -> usize {
    let mut end = 0;
    while let Some(prefix) = body[end..].first_chunk()
        && let Ok(size) = size_of(*prefix)
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
pub(crate) fn put_prefix(buf: &mut impl BufMut, size: u32) {
    let [a, b, c, d] = size.to_be_bytes();
    buf.put_slice(&[0, a, b, c, d]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_messages_are_counted_up_to_one_that_is_cut_or_compressed() {
        let mut body = Vec::new();
        for size in [0, 3, 300] {
            put_prefix(&mut body, size);
            body.resize(body.len() + size as usize, 7);
        }
        assert_eq!(whole_messages(&body), body.len());
        assert_eq!(whole_messages(&body[..body.len() - 1]), 13);
        assert_eq!(whole_messages(&body[..12]), 5);
        assert_eq!(whole_messages(&body[..4]), 0);
        let whole = body.len();
        body.extend_from_slice(&[1, 0, 0, 0, 0]);
        assert_eq!(whole_messages(&body), whole);
        assert_eq!(size_of([1, 0, 0, 0, 0]), Err(WriteError::Compressed));
    }
}
