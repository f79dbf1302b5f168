//! The writing half of [`framing`](super::framing).

use bytes::{BufMut, BytesMut};

use super::codec;
use super::framing::{IDENTITY, PREFIX_LEN};
use super::{FrameRef, FrameSink};
use crate::Side;

/// Writes frames into a buffer, each behind its prefix.
#[derive(Debug)]
pub struct FrameWriter<'a> {
    from: Side,
    buf: &'a mut BytesMut,
}

impl<'a> FrameWriter<'a> {
    /// Appends the frames that `from` sends to `buf`.
    pub fn new(from: Side, buf: &'a mut BytesMut) -> Self {
        Self { from, buf }
    }
}

impl FrameSink for FrameWriter<'_> {
    /// Appends prefix and frame, and counts both.
    ///
    /// Writes nothing and returns 0 for a frame that this side cannot send (see [`codec::encode`]),
    /// and for a frame too large for the prefix, 4 GiB, which the state machine never makes. With
    /// debug assertions both panic.
    fn frame(&mut self, frame: FrameRef<'_>) -> usize {
        if let Some((head, data)) = codec::Head::of(&frame) {
            let head = head.bytes();
            self.buf.reserve(head.len() + data.len());
            self.buf.extend_from_slice(head);
            self.buf.extend_from_slice(data);
            return head.len() + data.len();
        }
        let Some(frame) = codec::prepare(self.from, &frame) else {
            return 0;
        };
        let len = frame.len();
        let Ok(declared) = u32::try_from(len) else {
            debug_assert!(false, "a frame of {len} bytes");
            return 0;
        };
        self.buf.reserve(PREFIX_LEN + len);
        self.buf.put_u8(IDENTITY);
        self.buf.put_u32(declared);
        frame.write(self.buf);
        PREFIX_LEN + len
    }
}
