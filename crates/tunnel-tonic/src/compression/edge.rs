//! Decompressing the messages of a body, for a peer that does not carry compressed messages.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;
use tunnel_core::frame::framing::PREFIX_LEN;

use super::codec::{self, DecompressError, Decompressor};
use crate::headers::{ACCEPT_ENCODING, ENCODING};

/// Whose messages a body has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessagesOf {
    /// A request: the client's.
    Client,
    /// A response: the server's.
    Server,
}

/// Shows the body as an error names it.
impl fmt::Display for MessagesOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "the client's request",
            Self::Server => "the server's response",
        })
    }
}

/// The error for a compressed message whose encoding no header has named, as gRPC has it.
pub(crate) fn unnamed(of: MessagesOf) -> Status {
    Status::internal(format!(
        "{of} has a compressed message, but its headers name no encoding (grpc-encoding)"
    ))
}

/// The body with its messages decompressed, if `encoding` is not identity.
///
/// # Errors
///
/// UNIMPLEMENTED for an encoding that this build does not know.
pub(crate) fn decompressed(
    body: Body,
    encoding: Option<&str>,
    of: MessagesOf,
    limit: usize,
) -> Result<Body, Status> {
    let Some(encoding) = encoding.filter(|encoding| *encoding != "identity") else {
        return Ok(body);
    };
    let decompressor = codec::named(encoding).and_then(Decompressor::new);
    let Some(decompressor) = decompressor else {
        return Err(unknown(encoding, of));
    };
    Ok(Body::new(Decompressed {
        inner: Some(body),
        decompressor,
        of,
        limit,
        arrived: BytesMut::new(),
        plain: 0,
    }))
}

fn unknown(encoding: &str, of: MessagesOf) -> Status {
    let sender = match of {
        MessagesOf::Client => "client",
        MessagesOf::Server => "server",
    };
    let feature = match encoding {
        "gzip" | "deflate" | "zstd" => format!("enable the feature `{encoding}` at this end, or "),
        _ => String::new(),
    };
    let mut status = Status::unimplemented(format!(
        "{of} is compressed with `{encoding}`, which the far end of the tunnel does not carry and \
         this end does not decompress: {feature}switch it off at the {sender}"
    ));
    if let Ok(accepted) = codec::accepted().parse() {
        status.metadata_mut().insert(ACCEPT_ENCODING, accepted);
    }
    status
}

/// A body whose compressed messages are decompressed one after another.
struct Decompressed {
    /// `None` after the end.
    inner: Option<Body>,
    decompressor: Decompressor,
    of: MessagesOf,
    /// The largest message, in bytes, before and after it is decompressed.
    limit: usize,
    /// What has arrived and was not handed on.
    arrived: BytesMut,
    /// How many bytes of a message that is not compressed are still to be handed on.
    plain: usize,
}

impl Decompressed {
    /// The next piece of the body, if enough has arrived.
    fn next_piece(&mut self) -> Result<Option<Bytes>, Status> {
        if self.plain == 0 {
            let Some(&[flag, a, b, c, d]) = self.arrived.first_chunk::<PREFIX_LEN>() else {
                return Ok(None);
            };
            let size = u32::from_be_bytes([a, b, c, d]) as usize;
            if flag == 1 {
                return self.next_compressed(size);
            }
            self.plain = PREFIX_LEN.saturating_add(size);
        }
        let part = self.plain.min(self.arrived.len());
        self.plain -= part;
        Ok((part > 0).then(|| self.arrived.split_to(part).freeze()))
    }

    /// The message at the front with its prefix, decompressed, if it has arrived.
    fn next_compressed(&mut self, size: usize) -> Result<Option<Bytes>, Status> {
        let (of, limit) = (self.of, self.limit);
        if size > limit {
            return Err(Status::out_of_range(format!(
                "{of} has a compressed message of {size} bytes, but max_message_size is {limit}"
            )));
        }
        let Some(data) = self.arrived.get(PREFIX_LEN..PREFIX_LEN + size) else {
            return Ok(None);
        };
        let message = match self.decompressor.decompress(data, limit) {
            Ok(message) => message,
            Err(error @ DecompressError::TooLarge(_)) => {
                return Err(Status::resource_exhausted(format!(
                    "{of} has a compressed message, and {error} (max_message_size)"
                )));
            }
            Err(error) => {
                return Err(Status::internal(format!(
                    "{of} has a compressed message, but {error}"
                )));
            }
        };
        let _ = self.arrived.split_to(PREFIX_LEN + size);
        let Ok(size) = u32::try_from(message.len()) else {
            return Err(Status::resource_exhausted(format!(
                "{of} has a message larger than gRPC allows"
            )));
        };
        let mut piece = BytesMut::with_capacity(PREFIX_LEN + message.len());
        piece.put_u8(0);
        piece.put_u32(size);
        piece.extend_from_slice(&message);
        Ok(Some(piece.freeze()))
    }

    /// The error of a body that has ended cleanly inside a message.
    fn cut(&self) -> Status {
        Status::internal(format!("{} ended inside a message", self.of))
    }
}

/// Whether trailers say that the call failed anyway.
fn is_failure(trailers: &HeaderMap) -> bool {
    trailers
        .get("grpc-status")
        .is_some_and(|status| status != "0")
}

impl http_body::Body for Decompressed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        loop {
            match this.next_piece() {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Ok(None) => {}
                Err(status) => {
                    this.inner = None;
                    return Poll::Ready(Some(Err(status)));
                }
            }
            let Some(inner) = &mut this.inner else {
                return Poll::Ready(None);
            };
            let frame = match std::task::ready!(Pin::new(inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(status)) => {
                    this.inner = None;
                    return Poll::Ready(Some(Err(status)));
                }
                None => {
                    this.inner = None;
                    let is_cut = !std::mem::take(&mut this.arrived).is_empty() || this.plain > 0;
                    return Poll::Ready(is_cut.then(|| Err(this.cut())));
                }
            };
            match frame.into_data() {
                Ok(data) => this.arrived.extend_from_slice(&data),
                Err(other) => {
                    let is_cut = !std::mem::take(&mut this.arrived).is_empty() || this.plain > 0;
                    this.plain = 0;
                    if is_cut && !other.trailers_ref().is_some_and(is_failure) {
                        this.inner = None;
                        return Poll::Ready(Some(Err(this.cut())));
                    }
                    return Poll::Ready(Some(Ok(other)));
                }
            }
        }
    }
}

/// The encoding that metadata names.
pub(crate) fn encoding_of(metadata: &tunnel_core::Metadata) -> Option<&str> {
    metadata.get(ENCODING)
}
