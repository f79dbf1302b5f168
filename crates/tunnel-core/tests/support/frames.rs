//! Arbitrary frames.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use tunnel_core::frame::{CloseStream, NewStream, Settings};
use tunnel_core::{
    Code, Frame, FrameKind, FrameKindRef, FrameRef, Metadata, Side, Status, StatusDetail, StreamId,
};

/// The frame in the form that is sent.
pub(crate) fn borrowed(frame: &Frame) -> FrameRef<'_> {
    let kind = match &frame.kind {
        FrameKind::Settings(settings) => FrameKindRef::Settings(settings),
        FrameKind::NewStream(new) => FrameKindRef::NewStream {
            method: &new.method,
            headers: &new.headers,
            initial_window: new.initial_window,
            revision: new.revision,
        },
        FrameKind::Headers(md) => FrameKindRef::Headers(md),
        FrameKind::Message {
            size,
            data,
            compressed,
        } => FrameKindRef::Message {
            size: *size,
            data,
            compressed: *compressed,
        },
        FrameKind::MoreData(data) => FrameKindRef::MoreData(data),
        FrameKind::HalfClose => FrameKindRef::HalfClose,
        FrameKind::Close(close) => FrameKindRef::Close {
            trailers: &close.trailers,
            status: &close.status,
        },
        FrameKind::Cancel => FrameKindRef::Cancel,
        FrameKind::WindowUpdate(n) => FrameKindRef::WindowUpdate(*n),
        other => unreachable!("nobody sends {other:?}"),
    };
    FrameRef {
        stream_id: frame.stream_id,
        kind,
    }
}

/// A side and a frame that it can send.
pub(crate) fn sent() -> impl Strategy<Value = (Side, Frame)> {
    prop_oneof![
        kind_of_caller().prop_map(|kind| (Side::Caller, kind)),
        kind_of_handler().prop_map(|kind| (Side::Handler, kind)),
    ]
    .prop_flat_map(|(side, kind)| {
        (Just(side), stream_id(), Just(kind)).prop_map(|(side, id, kind)| {
            (
                side,
                Frame {
                    stream_id: StreamId::new(id),
                    kind,
                },
            )
        })
    })
}

fn kind_of_caller() -> impl Strategy<Value = FrameKind> {
    prop_oneof![
        4 => (text(), metadata(), any::<u32>(), number())
            .prop_map(|(method, headers, initial_window, revision)| {
                FrameKind::NewStream(NewStream { method, headers, initial_window, revision })
            }),
        1 => Just(FrameKind::HalfClose),
        1 => Just(FrameKind::Cancel),
        4 => kind_of_both(),
    ]
}

fn kind_of_handler() -> impl Strategy<Value = FrameKind> {
    prop_oneof![
        2 => metadata().prop_map(FrameKind::Headers),
        4 => (metadata(), status())
            .prop_map(|(trailers, status)| FrameKind::Close(CloseStream { trailers, status })),
        1 => (vec(number(), 0..5), any::<u32>()).prop_map(|(revisions, initial_window)| {
            FrameKind::Settings(Settings { revisions, initial_window })
        }),
        3 => kind_of_both(),
    ]
}

fn kind_of_both() -> impl Strategy<Value = FrameKind> {
    prop_oneof![
        (prop_oneof![Just(0), any::<u32>()], payload(), any::<bool>()).prop_map(
            |(size, data, compressed)| FrameKind::Message {
                size,
                data,
                compressed,
            }
        ),
        payload().prop_map(FrameKind::MoreData),
        prop_oneof![Just(0), any::<u32>()].prop_map(FrameKind::WindowUpdate),
    ]
}

fn stream_id() -> impl Strategy<Value = i64> {
    prop_oneof![Just(-1), Just(0), 1..1000i64, any::<i64>()]
}

fn number() -> impl Strategy<Value = i32> {
    prop_oneof![0..2i32, any::<i32>()]
}

fn payload() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..200),
        1 => (any::<u8>(), 0..20_000usize).prop_map(|(byte, len)| vec![byte; len]),
    ]
    .prop_map(Bytes::from)
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["", "[a-c]", "/?[a-z.]{1,30}/[A-Z][a-z]{1,10}", ".{0,40}"]
}

/// Metadata with few keys, so that keys repeat. Sometimes with more entries than any shortcut for
/// small lists handles.
fn metadata() -> impl Strategy<Value = Metadata> {
    let entries = |key: &'static str| vec((key, prop_oneof!["", ".{0,20}"]), 0..6);
    prop_oneof![
        3 => entries("[a-b]{0,2}"),
        1 => entries(".{0,5}"),
        1 => vec(("[a-d]{0,2}", "[x-z]{0,1}".prop_map(String::from)), 0..60),
        1 => (0..40usize, any::<bool>()).prop_map(|(n, again)| {
            let keys = 0..n;
            let more = (0..usize::from(again)).map(move |_| n / 2);
            keys.chain(more).map(|i| (format!("k{i}"), i.to_string())).collect()
        }),
    ]
    .prop_map(|entries| entries.into_iter().collect())
}

fn status() -> impl Strategy<Value = Status> {
    let detail = (text(), vec(any::<u8>(), 0..20)).prop_map(|(type_url, value)| StatusDetail {
        type_url,
        value: value.into(),
    });
    prop_oneof![
        1 => Just(Status::OK),
        3 => (0..17, text(), vec(detail, 0..3)).prop_map(|(code, message, details)| Status {
            code: Code::from_wire(code),
            message,
            details,
        }),
    ]
}
