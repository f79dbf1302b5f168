//! The codec of one frame: a protobuf message, `ClientToServer` from the caller and
//! `ServerToClient` from the handler.
//!
//! It is written by hand because frames are the hot path: [`encode`] writes borrowed
//! frames into the transport's buffer, [`decode`] does not copy payloads. Prost is the
//! oracle of its tests.
//!
//! Invariants:
//!
//! - One frame has one encoding: fields in the order of their numbers, defaults left out, the keys
//!   of metadata in the order of their first appearance. A metadata key that is repeated later in
//!   the list is joined with its first appearance, because the wire's type is a map.
//! - The decoder accepts what prost accepts, with the same meaning, and rejects what prost rejects:
//!   unknown fields, fields in any order, fields that come twice, groups, packed and plain lists.
//! - The time to decode is proportional to the number of bytes, and no frame takes more than a few
//!   times as long for each byte as those of ordinary calls
//!   (`cargo bench -p tunnel-core --bench instructions -- --check decode`).
//! - Memory depends on the bytes received, never on a declared length. Metadata of more than
//!   [`MAX_ENTRIES`] and details of more than [`MAX_DETAILS`] are read and not kept. The costliest
//!   are revisions, of one byte each, and below these limits empty metadata values and status
//!   details: two bytes each on the wire, about a hundred while they are decoded. So a frame takes
//!   at most fifty times its size.

mod data;
mod decode;
mod encode;
mod lists;
mod wire;

use bytes::{Bytes, BytesMut};

use super::{Frame, FrameKindRef, FrameRef};
use crate::Side;

/// How many metadata entries of a frame are kept when it is decoded: 4,096.
///
/// A list that is longer arrives empty, and its [`is_over_limit`](crate::Metadata::is_over_limit)
/// is true. No call that HTTP/2 can carry comes near the limit: an entry counts 32 bytes more than
/// its text there, and implementations accept 8 to 64 KiB of them in all.
pub const MAX_ENTRIES: usize = 4096;

/// How many details of a status are kept when a frame is decoded: 1,024.
///
/// A status with more arrives without any, and the trailers beside it are
/// [over the limit](crate::Metadata::is_over_limit).
pub const MAX_DETAILS: usize = 1024;

pub(super) use data::Head;
pub(super) use encode::Prepared;

/// How many bytes [`encode`] will append for a frame that `from` sends.
///
/// Zero for a kind that `from` cannot send, and only for that.
pub fn encoded_len(from: Side, frame: &FrameRef<'_>) -> usize {
    Prepared::new(from, frame).map_or(0, |frame| frame.len())
}

/// Appends a frame that `from` sends to `buf`, which grows at most once.
///
/// Appends nothing for a kind that `from` cannot send, such as
/// [`Headers`](FrameKindRef::Headers) from a caller. That is a mistake in the
/// state machine.
///
/// # Panics
///
/// With debug assertions, for a kind that `from` cannot send. Never without.
pub fn encode(from: Side, frame: &FrameRef<'_>, buf: &mut BytesMut) {
    if let Some(frame) = prepare(from, frame) {
        buf.reserve(frame.len());
        frame.write(buf);
    }
}

/// The measured frame, if `from` can send it. Otherwise a debug assertion fails.
pub(super) fn prepare<'a>(from: Side, frame: &FrameRef<'a>) -> Option<Prepared<'a>> {
    let prepared = Prepared::new(from, frame);
    debug_assert!(prepared.is_some(), "a {from:?} cannot send {frame:?}");
    prepared
}

/// Parses one frame that `from` sent.
///
/// The payload of a message is a slice of `bytes` and keeps its memory alive; everything else is
/// copied. Metadata keeps the order of the wire. Of two map entries with the same key the last one
/// counts, as in protobuf. Lists over [`MAX_ENTRIES`] or [`MAX_DETAILS`] are not kept. A status
/// that is absent is [`Status::OK`](crate::Status::OK).
///
/// # Errors
///
/// A [`DecodeError`] where `bytes` are not a valid message of that type. It
/// ends the tunnel: nothing after it can be trusted.
pub fn decode(from: Side, bytes: Bytes) -> Result<Frame, DecodeError> {
    decode::frame(from, bytes)
}

/// Why received bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A field reaches beyond the end of its message.
    #[error("the bytes end inside a field")]
    Truncated,
    /// A variable-length integer of more than 64 bits.
    #[error("an integer is longer than 64 bits")]
    Varint,
    /// The field number zero, or one that is too large.
    #[error("a field has a number that protobuf does not allow")]
    FieldNumber,
    /// A field is encoded in a way that its type does not allow, or that does
    /// not exist.
    #[error("field {field} has wire type {wire_type}, which is wrong for it")]
    WireType {
        /// The number of the field in its message.
        field: u32,
        /// The encoding on the wire, 0 to 7.
        wire_type: u8,
    },
    /// A group ends that did not begin.
    #[error("a group ends that did not begin")]
    Group,
    /// Unknown groups are nested deeper than the limit of protobuf
    /// implementations, which is 100 levels.
    #[error("groups are nested too deeply")]
    Depth,
    /// Text that is not UTF-8.
    #[error("field {field} is text, but it is not valid UTF-8")]
    Utf8 {
        /// The number of the field in its message.
        field: u32,
    },
}

/// The number of the `oneof` member of a kind, if `from` may send it. [`decode::frame`] has the
/// inverse table.
fn field_of(from: Side, kind: &FrameKindRef<'_>) -> Option<u32> {
    use FrameKindRef::*;
    Some(match (from, kind) {
        (Side::Caller, NewStream { .. }) | (Side::Handler, Headers(_)) => 2,
        (_, Message { .. }) => 3,
        (_, MoreData(_)) => 4,
        (Side::Caller, HalfClose) | (Side::Handler, Close { .. }) => 5,
        (Side::Caller, Cancel) | (Side::Handler, Settings(_)) => 6,
        (_, WindowUpdate(_)) => 7,
        (Side::Caller, Settings(_) | Headers(_) | Close { .. })
        | (Side::Handler, NewStream { .. } | HalfClose | Cancel) => return None,
    })
}
