//! Compression of messages: the codecs, and where a tunnel needs them.
//!
//! Between two ends of this library compressed messages pass as they are. Towards other peers they
//! are decompressed at the edge of the tunnel ([`edge`]). The outer stream is compressed by option
//! ([`frames`]).

#[cfg_attr(
    not(any(feature = "gzip", feature = "deflate", feature = "zstd")),
    allow(
        dead_code,
        unreachable_code,
        unused_variables,
        reason = "without these features there is no encoding"
    )
)]
pub(crate) mod codec;
pub(crate) mod edge;
pub(crate) mod frames;
