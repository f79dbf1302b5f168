//! Compressing and decompressing single messages, the latter with a limit on the result.

use std::io;

use bytes::Bytes;
use tonic::codec::CompressionEncoding;

/// The largest window of a message compressed by zstd, as a power of two: 8 MiB, which decoders
/// are asked to support (RFC 8878). Decompressing allocates the window.
#[cfg(feature = "zstd")]
const ZSTD_WINDOW_LOG: u32 = 23;

/// How much memory a decoder of zstd keeps between two messages, in bytes. Its tables alone take 100 kB.
#[cfg(feature = "zstd")]
const ZSTD_KEPT: usize = 256 << 10;

/// The encodings that this build knows, in the order of preference when they are offered.
pub(crate) const SUPPORTED: &[CompressionEncoding] = &[
    #[cfg(feature = "zstd")]
    CompressionEncoding::Zstd,
    #[cfg(feature = "gzip")]
    CompressionEncoding::Gzip,
    #[cfg(feature = "deflate")]
    CompressionEncoding::Deflate,
];

/// Why a message could not be decompressed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecompressError {
    #[error("it is larger than {0} bytes when it is decompressed")]
    TooLarge(usize),
    #[error("it cannot be decompressed: {0}")]
    Corrupt(#[from] io::Error),
}

/// The encoding with a name, if this build knows it.
pub(crate) fn named(name: &str) -> Option<CompressionEncoding> {
    let mut supported = SUPPORTED.iter().copied();
    supported.find(|encoding| encoding.to_string() == name)
}

/// The value of `grpc-accept-encoding`.
pub(crate) fn accepted() -> String {
    let names = SUPPORTED.iter().map(ToString::to_string);
    let names: Vec<_> = names.chain(["identity".to_owned()]).collect();
    names.join(",")
}

/// Decompresses messages of one encoding. It keeps its memory from one to the next, but not the window of a large one:
/// a small message can ask for 8 MiB.
pub(crate) struct Decompressor {
    kind: Kind,
}

enum Kind {
    #[cfg(feature = "gzip")]
    Gzip,
    #[cfg(feature = "deflate")]
    Deflate,
    #[cfg(feature = "zstd")]
    Zstd(zstd::zstd_safe::DCtx<'static>),
}

#[cfg(feature = "zstd")]
fn zstd_decoder() -> Option<zstd::zstd_safe::DCtx<'static>> {
    use zstd::zstd_safe::{DCtx, DParameter};
    let mut context = DCtx::try_create()?;
    let window = DParameter::WindowLogMax(ZSTD_WINDOW_LOG);
    context.set_parameter(window).ok()?;
    Some(context)
}

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

impl Decompressor {
    /// `None` for an encoding whose feature is not enabled.
    pub(crate) fn new(encoding: CompressionEncoding) -> Option<Self> {
        let kind = match encoding {
            #[cfg(feature = "gzip")]
            CompressionEncoding::Gzip => Kind::Gzip,
            #[cfg(feature = "deflate")]
            CompressionEncoding::Deflate => Kind::Deflate,
            #[cfg(feature = "zstd")]
            CompressionEncoding::Zstd => Kind::Zstd(zstd_decoder()?),
            _ => return None,
        };
        Some(Self { kind })
    }

    /// Decompresses a message that has at most `limit` bytes then. It stops one byte beyond them.
    pub(crate) fn decompress(
        &mut self,
        data: &[u8],
        limit: usize,
    ) -> Result<Bytes, DecompressError> {
        match self.kind {
            #[cfg(feature = "gzip")]
            Kind::Gzip => read(flate2::bufread::GzDecoder::new(data), data.len(), limit),
            #[cfg(feature = "deflate")]
            Kind::Deflate => read(flate2::bufread::ZlibDecoder::new(data), data.len(), limit),
            #[cfg(feature = "zstd")]
            Kind::Zstd(ref mut context) => {
                let decoder = zstd::stream::read::Decoder::with_context(data, context);
                let message = read(decoder, data.len(), limit);
                if context.sizeof() > ZSTD_KEPT
                    && let Some(fresh) = zstd_decoder()
                {
                    *context = fresh;
                }
                message
            }
        }
    }
}

/// Compresses messages with one encoding. It keeps its buffer from one to the next.
pub(crate) struct Compressor {
    kind: CompressorKind,
    out: Vec<u8>,
}

enum CompressorKind {
    #[cfg(feature = "gzip")]
    Gzip,
    #[cfg(feature = "deflate")]
    Deflate,
    #[cfg(feature = "zstd")]
    Zstd(zstd::bulk::Compressor<'static>),
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl Compressor {
    /// `None` for an encoding whose feature is not enabled.
    pub(crate) fn new(encoding: CompressionEncoding) -> Option<Self> {
        let kind = match encoding {
            #[cfg(feature = "gzip")]
            CompressionEncoding::Gzip => CompressorKind::Gzip,
            #[cfg(feature = "deflate")]
            CompressionEncoding::Deflate => CompressorKind::Deflate,
            #[cfg(feature = "zstd")]
            CompressionEncoding::Zstd => {
                let level = zstd::DEFAULT_COMPRESSION_LEVEL;
                CompressorKind::Zstd(zstd::bulk::Compressor::new(level).ok()?)
            }
            _ => return None,
        };
        let out = Vec::new();
        Some(Self { kind, out })
    }

    /// The compressed form of a message; `None` if that is not smaller.
    pub(crate) fn compress(&mut self, data: &[u8]) -> Option<&[u8]> {
        let out = &mut self.out;
        out.clear();
        match self.kind {
            #[cfg(feature = "gzip")]
            CompressorKind::Gzip => {
                let encoder = flate2::bufread::GzEncoder::new(data, flate2::Compression::default());
                read_all(encoder, out)?;
            }
            #[cfg(feature = "deflate")]
            CompressorKind::Deflate => {
                let encoder =
                    flate2::bufread::ZlibEncoder::new(data, flate2::Compression::default());
                read_all(encoder, out)?;
            }
            #[cfg(feature = "zstd")]
            CompressorKind::Zstd(ref mut compressor) => {
                out.reserve(zstd::zstd_safe::compress_bound(data.len()));
                compressor.compress_to_buffer(data, out).ok()?;
            }
        }
        (out.len() < data.len()).then_some(out)
    }
}

#[cfg(any(feature = "gzip", feature = "deflate"))]
fn read_all(mut from: impl io::Read, out: &mut Vec<u8>) -> Option<()> {
    from.read_to_end(out).ok().map(|_| ())
}

#[cfg(any(feature = "gzip", feature = "deflate", feature = "zstd"))]
fn read(from: impl io::Read, compressed: usize, limit: usize) -> Result<Bytes, DecompressError> {
    use io::Read as _;
    let mut message = Vec::with_capacity(compressed.saturating_mul(2).min(limit));
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    from.take(most).read_to_end(&mut message)?;
    if message.len() > limit {
        return Err(DecompressError::TooLarge(limit));
    }
    // What is counted is the length.
    if message.capacity() - message.len() > message.len() / 4 {
        message.shrink_to_fit();
    }
    Ok(message.into())
}
