//! An arbitrary frame.
//!
//! Layout: one byte for the sender and the writer (our codec or prost), then the parts of the frame
//! as `Frames` reads them.
//!
//! - prost and our codec read a frame that our codec wrote as the same. With sorted keys, our codec
//!   and prost write the same bytes.
//! - Our codec reads what prost writes, also with absent and empty parts, unknown codes and keys
//!   without values.
//! - A frame has the announced length, and framing adds only its prefix.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use tunnel_core::frame::codec::decode;
use tunnel_core::frame::framing::{FrameWriter, PREFIX_LEN};
use tunnel_core::frame::{CloseStream, NewStream, Settings};
use tunnel_core::{
    Code, Frame, FrameKind, FrameSink, Metadata, Side, Status, StatusDetail, StreamId,
};
use tunnel_proto::google::rpc;
use tunnel_proto::grpctunnel::v1::{self, client_to_server, metadata, server_to_client};

use super::Input;
use crate::frames::borrowed;
use crate::oracle::{self, Wire, encoded, sorted};

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.u8();
    let from = match choice & 1 {
        0 => Side::Caller,
        _ => Side::Handler,
    };
    let stream_id = id(&mut input);
    if choice & 2 == 0 {
        let kind = kind(from, &mut input);
        we_write(
            from,
            Frame {
                stream_id: StreamId::new(stream_id),
                kind,
            },
        );
    } else {
        prost_writes(&foreign(from, stream_id, &mut input));
    }
}

fn we_write(from: Side, frame: Frame) {
    let bytes = encoded(from, &frame);
    let theirs = Wire::parse(from, bytes.clone()).expect("prost reads what we write");
    assert_eq!(theirs, oracle::message(from, &frame));

    let mut framed = BytesMut::new();
    let counted = FrameWriter::new(from, &mut framed).frame(borrowed(&frame));
    assert_eq!(counted, framed.len());
    assert_eq!(framed[0], 0);
    assert_eq!(framed[1..PREFIX_LEN], (bytes.len() as u32).to_be_bytes());
    assert_eq!(framed[PREFIX_LEN..], bytes);

    let ours = decode(from, bytes).expect("we read what we write");
    let frame = sorted(frame);
    assert_eq!(sorted(ours), frame);
    let in_order = oracle::message(from, &frame).bytes();
    assert_eq!(encoded(from, &frame), in_order, "the bytes of prost");
}

fn prost_writes(message: &Wire) {
    let from = message.from();
    let ours = decode(from, message.bytes()).expect("we read what prost writes");
    assert_eq!(sorted(ours), oracle::frame(message.clone()));
}

fn id(input: &mut Input<'_>) -> i64 {
    match input.u8() {
        255 => input.u64() as i64,
        254 => -1,
        small => small.into(),
    }
}

fn int32(input: &mut Input<'_>) -> i32 {
    input.number() as i32
}

/// A number of parts: mostly few, sometimes more than any shortcut for small lists handles.
fn count(input: &mut Input<'_>) -> usize {
    match input.u8() {
        n @ 0..240 => usize::from(n % 8),
        n => usize::from(n - 240) * 4,
    }
}

/// A payload: bytes of the input, or many of one value.
fn payload(input: &mut Input<'_>) -> Bytes {
    if input.flag() {
        let byte = input.u8();
        vec![byte; input.u16().into()].into()
    } else {
        Bytes::copy_from_slice(input.short())
    }
}

/// Metadata with few different keys, so that keys repeat.
fn md(input: &mut Input<'_>) -> Metadata {
    let count = count(input);
    (0..count).map(|_| (key(input), input.text())).collect()
}

fn key(input: &mut Input<'_>) -> String {
    match input.u8() {
        0 => String::new(),
        n @ 1..200 => format!("key-{}", n % 40),
        _ => input.text(),
    }
}

/// A kind that `from` may send.
fn kind(from: Side, input: &mut Input<'_>) -> FrameKind {
    match (input.below(6), from) {
        (0, _) => FrameKind::Message {
            size: input.number(),
            data: payload(input),
            compressed: input.flag(),
        },
        (1, _) => FrameKind::MoreData(payload(input)),
        (2, _) => FrameKind::WindowUpdate(input.number()),
        (3, Side::Caller) => FrameKind::HalfClose,
        (4, Side::Caller) => FrameKind::Cancel,
        (_, Side::Caller) => FrameKind::NewStream(NewStream {
            method: input.text(),
            headers: md(input),
            initial_window: input.number(),
            revision: int32(input),
        }),
        (3, Side::Handler) => FrameKind::Headers(md(input)),
        (4, Side::Handler) => {
            let count = count(input);
            FrameKind::Settings(Settings {
                revisions: (0..count).map(|_| int32(input)).collect(),
                initial_window: input.number(),
            })
        }
        (_, Side::Handler) => {
            let status = status(input);
            FrameKind::Close(CloseStream {
                trailers: md(input),
                status: Status {
                    code: Code::from_wire(status.code),
                    message: status.message,
                    details: status.details.into_iter().map(detail).collect(),
                },
            })
        }
    }
}

fn detail(any: prost_types::Any) -> StatusDetail {
    StatusDetail {
        type_url: any.type_url,
        value: any.value.into(),
    }
}

fn status(input: &mut Input<'_>) -> rpc::Status {
    let code = int32(input);
    let message = input.text();
    let count = count(input);
    let details = (0..count).map(|_| prost_types::Any {
        type_url: input.text(),
        value: input.short().to_vec(),
    });
    rpc::Status {
        code,
        message,
        details: details.collect(),
    }
}

/// A message of prost, also such as our codec never writes.
fn foreign(from: Side, stream_id: i64, input: &mut Input<'_>) -> Wire {
    match from {
        Side::Caller => {
            use client_to_server::Frame as F;
            let frame = match input.below(7) {
                0 => None,
                1 => Some(F::RequestMessage(data(input))),
                2 => Some(F::MoreRequestData(payload(input))),
                3 => Some(F::WindowUpdate(input.number())),
                4 => Some(F::HalfClose(())),
                5 => Some(F::Cancel(())),
                _ => Some(F::NewStream(v1::NewStream {
                    method_name: input.text(),
                    request_headers: input.flag().then(|| map(input)),
                    initial_window_size: input.number(),
                    protocol_revision: int32(input),
                })),
            };
            Wire::Caller(v1::ClientToServer { stream_id, frame })
        }
        Side::Handler => {
            use server_to_client::Frame as F;
            let frame = match input.below(7) {
                0 => None,
                1 => Some(F::ResponseMessage(data(input))),
                2 => Some(F::MoreResponseData(payload(input))),
                3 => Some(F::WindowUpdate(input.number())),
                4 => Some(F::ResponseHeaders(map(input))),
                5 => Some(F::Settings(v1::Settings {
                    supported_protocol_revisions: {
                        let count = count(input);
                        (0..count).map(|_| int32(input)).collect()
                    },
                    initial_window_size: input.number(),
                })),
                _ => Some(F::CloseStream(v1::CloseStream {
                    response_trailers: input.flag().then(|| map(input)),
                    status: input.flag().then(|| status(input)),
                })),
            };
            Wire::Handler(v1::ServerToClient { stream_id, frame })
        }
    }
}

fn data(input: &mut Input<'_>) -> v1::MessageData {
    v1::MessageData {
        size: input.number(),
        data: payload(input),
        compressed: input.flag(),
    }
}

/// Metadata in which a key may have no values at all.
fn map(input: &mut Input<'_>) -> v1::Metadata {
    let count = count(input);
    let entries = (0..count).map(|_| {
        let key = key(input);
        let values = input.below(4);
        let val = (0..values).map(|_| input.text()).collect();
        (key, metadata::Values { val })
    });
    v1::Metadata {
        md: entries.collect::<BTreeMap<_, _>>(),
    }
}
