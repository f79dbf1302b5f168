//! Frames made by hand.

use bytes::Bytes;
use tunnel_core::frame::{CloseStream, NewStream, Settings};
use tunnel_core::{Code, Frame, FrameKind, Metadata, Status, StreamId};

/// The window of the other implementations.
pub(crate) const WINDOW: u32 = 65_536;

fn frame(stream_id: i64, kind: FrameKind) -> Frame {
    let stream_id = StreamId::new(stream_id);
    Frame { stream_id, kind }
}

pub(crate) fn settings(revisions: &[i32], initial_window: u32) -> Frame {
    settings_on(StreamId::CONTROL.value(), revisions, initial_window)
}

pub(crate) fn settings_on(id: i64, revisions: &[i32], initial_window: u32) -> Frame {
    let revisions = revisions.to_vec();
    frame(
        id,
        FrameKind::Settings(Settings {
            revisions,
            initial_window,
        }),
    )
}

/// The opening of an ordinary call.
pub(crate) fn new_stream() -> NewStream {
    NewStream {
        method: "/test.Echo/Say".into(),
        headers: Metadata::new(),
        initial_window: WINDOW,
        revision: 1,
    }
}

pub(crate) fn open(id: i64) -> Frame {
    open_with(id, new_stream())
}

pub(crate) fn open_with(id: i64, new: NewStream) -> Frame {
    frame(id, FrameKind::NewStream(new))
}

pub(crate) fn open_zero(id: i64) -> Frame {
    let new = NewStream {
        revision: 0,
        initial_window: 0,
        ..new_stream()
    };
    open_with(id, new)
}

pub(crate) fn headers(id: i64, md: Metadata) -> Frame {
    frame(id, FrameKind::Headers(md))
}

/// A message in one frame.
pub(crate) fn message(id: i64, data: impl Into<Bytes>) -> Frame {
    let data = data.into();
    begin(id, data.len() as u32, data)
}

/// The first frame of a message that declares `size` bytes.
pub(crate) fn begin(id: i64, size: u32, data: impl Into<Bytes>) -> Frame {
    let data = data.into();
    let compressed = false;
    frame(
        id,
        FrameKind::Message {
            size,
            data,
            compressed,
        },
    )
}

/// A compressed message in one frame.
pub(crate) fn compressed(id: i64, data: impl Into<Bytes>) -> Frame {
    let mut frame = message(id, data);
    if let FrameKind::Message { compressed, .. } = &mut frame.kind {
        *compressed = true;
    }
    frame
}

pub(crate) fn more(id: i64, data: impl Into<Bytes>) -> Frame {
    frame(id, FrameKind::MoreData(data.into()))
}

pub(crate) fn half_close(id: i64) -> Frame {
    frame(id, FrameKind::HalfClose)
}

pub(crate) fn cancel(id: i64) -> Frame {
    frame(id, FrameKind::Cancel)
}

pub(crate) fn update(id: i64, credit: u32) -> Frame {
    frame(id, FrameKind::WindowUpdate(credit))
}

pub(crate) fn unknown(id: i64) -> Frame {
    frame(id, FrameKind::Unknown)
}

pub(crate) fn close(id: i64, code: Code) -> Frame {
    close_with(id, Metadata::new(), Status::new(code, ""))
}

pub(crate) fn close_with(id: i64, trailers: Metadata, status: Status) -> Frame {
    frame(id, FrameKind::Close(CloseStream { trailers, status }))
}

/// A handler's drain notice.
pub(crate) fn going_away(last: i64) -> Frame {
    let last = last.to_string();
    let trailers = metadata(&[("grpctunnel-last-stream", &last)]);
    close_with(StreamId::CONTROL.value(), trailers, Status::OK)
}

pub(crate) fn metadata(entries: &[(&str, &str)]) -> Metadata {
    entries.iter().copied().collect()
}

/// Metadata that counts exactly `size` bytes.
pub(crate) fn metadata_of_size(size: usize) -> Metadata {
    let key = "k";
    let value = "v".repeat(size - key.len() - tunnel_core::metadata::ENTRY_OVERHEAD);
    let md = metadata(&[(key, &value)]);
    assert_eq!(md.size(), size);
    md
}

/// Request headers with a deadline.
pub(crate) fn timeout(value: &str) -> Metadata {
    metadata(&[("grpc-timeout", value)])
}
