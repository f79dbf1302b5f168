//! Framing: frames on a byte stream, as gRPC puts messages into a body: one byte of
//! flags, four bytes of length (big-endian), then the frame.
//!
//! [`FrameWriter`] writes frames, [`Deframer`] finds them in received bytes.
//! Invariants of the [`Deframer`]:
//!
//! - Memory is allocated for received bytes only: at most twice as many, and never
//!   more than the frame declares.
//! - A frame shares the memory of the chunk it came in, unless it would keep much
//!   more memory alive than its own ([`next`](Deframer::next) has the rule).
//! - The first error is final, because the start of the next frame is not known.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use super::Frame;
use super::codec::{self, DecodeError};
use crate::Side;

pub use super::writer::FrameWriter;

/// The size of the prefix of each frame, in bytes: flags and length.
pub const PREFIX_LEN: usize = 5;

/// A frame below this size, in bytes, is never copied out of its chunk.
///
/// The state machine copies payloads this small itself, which costs less than a reference for each.
/// Frames without a payload are dropped when they have been handled.
pub const SMALL_FRAME: usize = 4096;

/// A frame that is less than this fraction of its chunk is copied out of it.
///
/// Most senders write batches of 64 KiB and exceed them by up to a frame: four or five full frames.
/// With a quarter instead of a sixth most frames of such batches would be copied, which costs half
/// of the receiving end's instructions for large messages.
const PINNING_FRACTION: usize = 6;

/// The flag of an uncompressed frame.
pub(super) const IDENTITY: u8 = 0;

/// The flag of a compressed frame.
const COMPRESSED: u8 = 1;

/// Finds frames in a byte stream.
///
/// Push the bytes that the transport delivers, then take frames until none is left:
///
/// ```
/// use bytes::Bytes;
/// use tunnel_core::frame::framing::Deframer;
///
/// let mut deframer = Deframer::new(1 << 20);
/// deframer.push(Bytes::from_static(b"\0\0\0\0\x02hi\0\0\0"));
/// assert_eq!(deframer.next()?.as_deref(), Some(&b"hi"[..]));
/// assert_eq!(deframer.next()?, None);
/// assert!(deframer.is_mid_frame());
/// # Ok::<(), tunnel_core::frame::framing::FramingError>(())
/// ```
#[derive(Debug)]
pub struct Deframer {
    max_frame_size: usize,
    /// Decompresses frames with the flag; without it they are an error.
    decompress: Option<Hook>,
    /// The pushed chunks that are not used up, oldest first. No chunk is empty.
    chunks: VecDeque<Chunk>,
    /// The bytes in `chunks`.
    waiting: usize,
    /// The prefix of the current frame, of which `prefix_len` bytes have arrived.
    prefix: [u8; PREFIX_LEN],
    prefix_len: usize,
    /// The beginning of the current frame, if it lies in several chunks.
    gathered: Vec<u8>,
    failed: Option<FramingError>,
}

/// Decompresses a frame; from the transport, which knows the encoding.
///
/// It gets the compressed bytes and the largest size that it may return. It must stop at that size, and
/// return [`FramingError::InflatedFrameTooLarge`], or [`FramingError::Undecompressable`].
pub type Decompress =
    Box<dyn FnMut(&[u8], usize) -> Result<Bytes, FramingError> + Send + Sync + 'static>;

struct Hook(Decompress);

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decompress")
    }
}

#[derive(Debug)]
struct Chunk {
    rest: Bytes,
    /// The length of the chunk when it was pushed, which is the memory that a slice of it keeps
    /// alive.
    whole: usize,
}

impl Chunk {
    /// Takes a whole frame from the chunk: a slice, or a copy if a slice would keep too much memory
    /// alive.
    fn take(&mut self, len: usize) -> Bytes {
        let frame = if len == self.rest.len() {
            std::mem::take(&mut self.rest)
        } else {
            self.rest.split_to(len)
        };
        let least = self.whole.div_ceil(PINNING_FRACTION);
        if frame.len() >= SMALL_FRAME && frame.len() < least {
            Bytes::copy_from_slice(&frame)
        } else {
            frame
        }
    }
}

impl Deframer {
    /// A deframer for frames of up to `max_frame_size` bytes, without prefix.
    pub fn new(max_frame_size: usize) -> Self {
        Self {
            max_frame_size,
            decompress: None,
            chunks: VecDeque::new(),
            waiting: 0,
            prefix: [0; PREFIX_LEN],
            prefix_len: 0,
            gathered: Vec::new(),
            failed: None,
        }
    }

    /// Accepts compressed frames too, of up to `max_frame_size` bytes before and after they are
    /// decompressed. Frames that are not compressed cost no more than without it.
    #[must_use]
    pub fn decompress_with(mut self, decompress: Decompress) -> Self {
        self.decompress = Some(Hook(decompress));
        self
    }

    /// Takes the next piece of the stream; it may be empty.
    ///
    /// The deframer keeps chunks until [`next`](Self::next) has taken their frames, without a limit.
    /// After an error it drops them.
    ///
    /// A chunk should own all or most of its memory. The rule by which `next` copies uses the
    /// chunk's length, and a short slice of a large buffer keeps the whole buffer alive.
    pub fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() || self.failed.is_some() {
            return;
        }
        self.waiting += chunk.len();
        self.chunks.push_back(Chunk {
            whole: chunk.len(),
            rest: chunk,
        });
    }

    /// The bytes of the next frame, without its prefix; `None` until more has
    /// been pushed.
    ///
    /// A frame that arrived in one chunk is a slice of it. The frame, and a payload decoded from
    /// it, keep the whole chunk alive. A few unread bytes could thus pin a chunk of a megabyte,
    /// which no count of unread bytes includes. Therefore a frame of [`SMALL_FRAME`] bytes or more
    /// that is less than a sixth of its chunk is copied out, and a slice pins at most six times its
    /// size. Smaller frames stay slices, because a stream that keeps one copies it anyway.
    ///
    /// # Errors
    ///
    /// A [`FramingError`], the same one from then on.
    #[expect(clippy::should_implement_trait, reason = "None is not the end")]
    pub fn next(&mut self) -> Result<Option<Bytes>, FramingError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if let Some(frame) = self.whole_frame() {
            return Ok(Some(frame));
        }
        let Some(len) = self.read_prefix().map_err(|e| self.fail(e))? else {
            return Ok(None);
        };
        let Some(frame) = self.read_frame(len) else {
            return Ok(None);
        };
        self.prefix_len = 0;
        match &mut self.decompress {
            Some(Hook(decompress)) if self.prefix[0] == COMPRESSED => {
                let limit = self.max_frame_size;
                let frame = decompress(&frame, limit).map_err(|e| self.fail(e))?;
                Ok(Some(frame))
            }
            _ => Ok(Some(frame)),
        }
    }

    /// The next frame that `from` sent, parsed; `None` until more has been
    /// pushed.
    ///
    /// # Errors
    ///
    /// A [`FrameError`]: either the stream or one frame is broken. The deframer continues after a
    /// frame that cannot be decoded, but a tunnel must not.
    pub fn decode_next(&mut self, from: Side) -> Result<Option<Frame>, FrameError> {
        match self.next()? {
            Some(bytes) => Ok(Some(codec::decode(from, bytes)?)),
            None => Ok(None),
        }
    }

    /// Whether the stream, were it to end now, would end inside a frame.
    ///
    /// Call it after [`next`](Self::next) has returned `None`. Before, the result is also true when
    /// whole frames wait to be taken. False after an error.
    pub fn is_mid_frame(&self) -> bool {
        self.buffered() > 0
    }

    /// The number of bytes held, prefixes included: those that were pushed and are not part of a
    /// frame that was taken. Zero after an error.
    pub fn buffered(&self) -> usize {
        self.waiting + self.prefix_len + self.gathered.len()
    }

    /// The next frame, if the frame and its prefix lie in one chunk, as nearly all do. `None` does
    /// not mean that no frame is complete.
    fn whole_frame(&mut self) -> Option<Bytes> {
        if self.prefix_len > 0 {
            return None;
        }
        let chunk = self.chunks.front_mut()?;
        let (&[flags, a, b, c, d], rest) = chunk.rest.split_first_chunk()?;
        let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
        if flags != IDENTITY || len == 0 || len > self.max_frame_size || len > rest.len() {
            return None;
        }
        chunk.rest.advance(PREFIX_LEN);
        let frame = chunk.take(len);
        self.used(PREFIX_LEN + len);
        Some(frame)
    }

    /// The declared length of the current frame, when its prefix is complete.
    fn read_prefix(&mut self) -> Result<Option<usize>, FramingError> {
        while self.prefix_len < PREFIX_LEN {
            let Some(chunk) = self.chunks.front_mut() else {
                return Ok(None);
            };
            let n = chunk.rest.len().min(PREFIX_LEN - self.prefix_len);
            chunk
                .rest
                .copy_to_slice(&mut self.prefix[self.prefix_len..][..n]);
            self.prefix_len += n;
            self.used(n);
        }
        let [flags, length @ ..] = self.prefix;
        match flags {
            IDENTITY => {}
            COMPRESSED if self.decompress.is_some() => {}
            COMPRESSED => return Err(FramingError::Compressed),
            _ => return Err(FramingError::Flags(flags)),
        }
        let size = u32::from_be_bytes(length);
        match usize::try_from(size) {
            Ok(len) if len <= self.max_frame_size => Ok(Some(len)),
            _ => Err(FramingError::FrameTooLarge {
                size,
                limit: self.max_frame_size,
            }),
        }
    }

    /// The current frame, whose prefix declares `len` bytes.
    fn read_frame(&mut self, len: usize) -> Option<Bytes> {
        if len == 0 {
            // An empty slice would keep its chunk alive.
            return Some(Bytes::new());
        }
        if self.gathered.is_empty()
            && let Some(chunk) = self.chunks.front_mut()
            && chunk.rest.len() >= len
        {
            let frame = chunk.take(len);
            self.used(len);
            return Some(frame);
        }
        while let Some(chunk) = self.chunks.front_mut() {
            let n = chunk.rest.len().min(len - self.gathered.len());
            make_room(&mut self.gathered, n, len);
            self.gathered.extend_from_slice(&chunk.rest[..n]);
            chunk.rest.advance(n);
            self.used(n);
            if self.gathered.len() == len {
                return Some(std::mem::take(&mut self.gathered).into());
            }
        }
        None
    }

    /// Notes that `n` bytes of the first chunk were taken.
    fn used(&mut self, n: usize) {
        self.waiting -= n;
        if self.chunks.front().is_some_and(|c| c.rest.is_empty()) {
            self.chunks.pop_front();
        }
    }

    /// Drops everything.
    fn fail(&mut self, error: FramingError) -> FramingError {
        let max_frame_size = self.max_frame_size;
        *self = Self {
            failed: Some(error),
            ..Self::new(max_frame_size)
        };
        error
    }
}

/// Reserves space for `n` more bytes of a frame of `len` bytes: twice the size that is needed then,
/// so that growing takes linear time, but no more than the frame.
fn make_room(gathered: &mut Vec<u8>, n: usize, len: usize) {
    let needed = gathered.len() + n;
    if needed > gathered.capacity() {
        let room = needed.saturating_mul(2).min(len);
        gathered.reserve_exact(room - gathered.len());
    }
}

/// Why a byte stream is not a sequence of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FramingError {
    /// A frame is larger than allowed.
    #[error("a frame of {size} bytes, the limit is {limit}")]
    FrameTooLarge {
        /// The size its prefix declares, in bytes.
        size: u32,
        /// The limit, in bytes.
        limit: usize,
    },
    /// A frame is compressed.
    #[error("a compressed frame, but the tunnel does not offer an encoding")]
    Compressed,
    /// A compressed frame is larger than allowed when it is decompressed.
    #[error("a compressed frame has more than {limit} bytes when it is decompressed")]
    InflatedFrameTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// A compressed frame cannot be decompressed.
    #[error("a compressed frame cannot be decompressed")]
    Undecompressable,
    /// A frame begins with flags that gRPC does not know.
    #[error("a frame begins with flags {0}, only 0 and 1 have a meaning")]
    Flags(u8),
}

/// Why [`Deframer::decode_next`] has no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The byte stream is broken.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// The bytes of a frame are broken.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(len: u32) -> Vec<u8> {
        [&[IDENTITY][..], &len.to_be_bytes()].concat()
    }

    fn framed(body: &[u8]) -> Vec<u8> {
        [prefix(body.len() as u32), body.to_vec()].concat()
    }

    #[test]
    fn memory_follows_what_arrived_and_not_what_is_declared() {
        let mut deframer = Deframer::new(usize::MAX);
        deframer.push(prefix(u32::MAX).into());
        assert_eq!(deframer.next(), Ok(None));
        assert_eq!(deframer.gathered.capacity(), 0);

        let mut arrived = 0;
        for piece in [1, 1, 10, 1000, 3, 100_000, 1] {
            deframer.push(vec![7; piece].into());
            assert_eq!(deframer.next(), Ok(None));
            arrived += piece;
            assert_eq!(deframer.gathered.len(), arrived);
            assert!(deframer.gathered.capacity() <= 2 * arrived);
        }
    }

    #[test]
    fn a_gathered_frame_has_no_more_memory_than_it_needs() {
        let body = [7; 1500];
        let stream = framed(&body);
        let mut deframer = Deframer::new(usize::MAX);
        for piece in stream[..stream.len() - 1].chunks(400) {
            deframer.push(Bytes::copy_from_slice(piece));
            assert_eq!(deframer.next(), Ok(None));
        }
        assert_eq!(deframer.gathered.capacity(), body.len());
        deframer.push(Bytes::copy_from_slice(&body[..1]));
        assert_eq!(deframer.next(), Ok(Some(Bytes::copy_from_slice(&body))));
        assert_eq!(deframer.gathered.capacity(), 0);
    }

    #[test]
    fn gathering_byte_by_byte_takes_few_allocations() {
        let mut gathered = Vec::new();
        let mut grown = 0;
        for _ in 0..100_000 {
            let before = gathered.capacity();
            make_room(&mut gathered, 1, 1_000_000);
            gathered.push(0);
            grown += usize::from(gathered.capacity() != before);
        }
        assert!(grown <= 17, "{grown}");
    }
}
