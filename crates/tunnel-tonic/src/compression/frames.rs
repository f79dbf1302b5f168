//! Compressing the frames of a tunnel, each as a message of the outer stream.
//!
//! The frames of a batch are compressed one by one after they were written, outside the tunnel's lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use tonic::codec::CompressionEncoding;
use tunnel_core::frame::framing::{Decompress, Deframer, FramingError, PREFIX_LEN};

use super::codec::{Compressor, DecompressError, Decompressor};

/// Frames below this size, in bytes, are not compressed: it costs more time than it saves bytes
/// (`docs/PERFORMANCE.md`).
const SMALLEST: usize = 512;

/// Compresses the frames of a batch where that makes them smaller.
pub(crate) fn compress(compressor: &mut Compressor, batch: BytesMut) -> Bytes {
    let mut out = BytesMut::new();
    let mut done = 0;
    let mut at = 0;
    while let Some((&[_, a, b, c, d], rest)) = batch[at..].split_first_chunk::<PREFIX_LEN>() {
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        let Some(frame) = rest.get(..len) else {
            debug_assert!(false, "a batch has whole frames");
            break;
        };
        let end = at + PREFIX_LEN + len;
        if len >= SMALLEST
            && let Some(compressed) = compressor.compress(frame)
            && let Ok(size) = u32::try_from(compressed.len())
        {
            out.reserve(at - done + PREFIX_LEN + compressed.len());
            out.put_slice(&batch[done..at]);
            out.put_u8(1);
            out.put_u32(size);
            out.put_slice(compressed);
            done = end;
        }
        at = end;
    }
    if done == 0 {
        return batch.freeze();
    }
    out.put_slice(&batch[done..]);
    out.freeze()
}

/// Reads the frames of the peer, which may be compressed.
#[derive(Debug)]
pub(crate) struct FrameReader {
    pub(crate) deframer: Deframer,
    /// How many bytes decompressing frames has made, since they were last taken.
    inflated: Arc<AtomicUsize>,
}

impl FrameReader {
    pub(crate) fn new(max_frame_size: usize, encoding: Option<CompressionEncoding>) -> Self {
        let inflated = Arc::new(AtomicUsize::new(0));
        let deframer = Deframer::new(max_frame_size);
        let hook = encoding.and_then(|encoding| decompress(encoding, inflated.clone()));
        Self {
            deframer: match hook {
                Some(hook) => deframer.decompress_with(hook),
                None => deframer,
            },
            inflated,
        }
    }

    /// The size of the frame that was just read, if it was compressed, otherwise zero.
    pub(crate) fn take_inflated(&self) -> usize {
        match self.inflated.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.inflated.swap(0, Ordering::Relaxed),
        }
    }
}

/// The hook of the deframer. It counts the bytes that it returns in `inflated`.
fn decompress(encoding: CompressionEncoding, inflated: Arc<AtomicUsize>) -> Option<Decompress> {
    let mut decompressor = Decompressor::new(encoding)?;
    Some(Box::new(move |frame, limit| {
        match decompressor.decompress(frame, limit) {
            Ok(frame) => {
                inflated.fetch_add(frame.len(), Ordering::Relaxed);
                Ok(frame)
            }
            Err(DecompressError::TooLarge(limit)) => {
                Err(FramingError::InflatedFrameTooLarge { limit })
            }
            Err(DecompressError::Corrupt(_)) => Err(FramingError::Undecompressable),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::codec::SUPPORTED;
    fn batch(frames: &[Vec<u8>]) -> BytesMut {
        let mut batch = BytesMut::new();
        for frame in frames {
            batch.put_u8(0);
            batch.put_u32(frame.len() as u32);
            batch.put_slice(frame);
        }
        batch
    }

    #[test]
    fn a_batch_comes_out_as_it_went_in_and_only_large_frames_are_compressed() {
        let sizes = [0, 3, SMALLEST - 1, SMALLEST, 20_000, 5, 70_000, 1];
        let frames = sizes.map(|size| vec![size as u8; size]);
        for &encoding in SUPPORTED {
            let mut compressor = Compressor::new(encoding).expect("known");
            let mut reader = FrameReader::new(70_000, Some(encoding));
            for _ in 0..2 {
                let whole = batch(&frames);
                let len = whole.len();
                let compressed = compress(&mut compressor, whole);
                assert!(compressed.len() < len / 10);
                reader.deframer.push(compressed);
                for expected in &frames {
                    let frame = reader.deframer.next().expect("intact").expect("whole");
                    assert!(frame == expected, "{encoding}: {}", expected.len());
                    let is_large = expected.len() >= SMALLEST;
                    let inflated = if is_large { expected.len() } else { 0 };
                    assert_eq!(reader.take_inflated(), inflated);
                }
                assert_eq!(reader.deframer.next(), Ok(None));
            }
        }
    }

    #[test]
    fn a_frame_that_does_not_become_smaller_is_left_as_it_is() {
        let mut state = 1_u64;
        let noise = std::iter::from_fn(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            Some((state >> 56) as u8)
        });
        let whole = batch(&[noise.take(10_000).collect()]);
        for &encoding in SUPPORTED {
            let mut compressor = Compressor::new(encoding).expect("known");
            assert_eq!(compress(&mut compressor, whole.clone()), whole);
        }
    }
}
