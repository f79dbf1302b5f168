//! Frames in prost's types: the oracle of the codec's tests.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use prost::Message;
use tunnel_core::frame::codec::{MAX_DETAILS, decode, encode, encoded_len};
use tunnel_core::frame::{CloseStream, NewStream, Settings};
use tunnel_core::{Code, Frame, FrameKind, Metadata, Side, Status, StatusDetail, StreamId};
use tunnel_proto::google::rpc;
use tunnel_proto::grpctunnel::v1::{self, client_to_server, metadata, server_to_client};

use crate::frames::borrowed;

/// A message of either direction.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wire {
    Caller(v1::ClientToServer),
    Handler(v1::ServerToClient),
}

impl Wire {
    pub(crate) fn bytes(&self) -> Bytes {
        match self {
            Self::Caller(message) => message.encode_to_vec(),
            Self::Handler(message) => message.encode_to_vec(),
        }
        .into()
    }

    pub(crate) fn parse(from: Side, bytes: Bytes) -> Result<Self, prost::DecodeError> {
        Ok(match from {
            Side::Caller => Self::Caller(v1::ClientToServer::decode(bytes)?),
            Side::Handler => Self::Handler(v1::ServerToClient::decode(bytes)?),
        })
    }

    pub(crate) fn from(&self) -> Side {
        match self {
            Self::Caller(_) => Side::Caller,
            Self::Handler(_) => Side::Handler,
        }
    }
}

/// The message that prost should read from our bytes.
pub(crate) fn message(from: Side, frame: &Frame) -> Wire {
    let stream_id = frame.stream_id.value();
    let data = |size: u32, data: &Bytes, compressed: bool| v1::MessageData {
        size,
        data: data.clone(),
        compressed,
    };
    match from {
        Side::Caller => {
            use client_to_server::Frame as F;
            let frame = match &frame.kind {
                FrameKind::NewStream(new) => F::NewStream(v1::NewStream {
                    method_name: new.method.clone(),
                    request_headers: Some(map(&new.headers)),
                    initial_window_size: new.initial_window,
                    protocol_revision: new.revision,
                }),
                FrameKind::Message {
                    size,
                    data: d,
                    compressed,
                } => F::RequestMessage(data(*size, d, *compressed)),
                FrameKind::MoreData(data) => F::MoreRequestData(data.clone()),
                FrameKind::HalfClose => F::HalfClose(()),
                FrameKind::Cancel => F::Cancel(()),
                FrameKind::WindowUpdate(n) => F::WindowUpdate(*n),
                other => panic!("no caller sends {other:?}"),
            };
            let frame = Some(frame);
            Wire::Caller(v1::ClientToServer { stream_id, frame })
        }
        Side::Handler => {
            use server_to_client::Frame as F;
            let frame = match &frame.kind {
                FrameKind::Headers(md) => F::ResponseHeaders(map(md)),
                FrameKind::Message {
                    size,
                    data: d,
                    compressed,
                } => F::ResponseMessage(data(*size, d, *compressed)),
                FrameKind::MoreData(data) => F::MoreResponseData(data.clone()),
                FrameKind::Close(close) => F::CloseStream(v1::CloseStream {
                    response_trailers: Some(map(&close.trailers)).filter(|md| !md.md.is_empty()),
                    status: (close.status != Status::OK).then(|| rpc::Status {
                        code: close.status.code.to_wire(),
                        message: close.status.message.clone(),
                        details: close.status.details.iter().map(any_of).collect(),
                    }),
                }),
                FrameKind::Settings(settings) => F::Settings(v1::Settings {
                    supported_protocol_revisions: settings.revisions.clone(),
                    initial_window_size: settings.initial_window,
                }),
                FrameKind::WindowUpdate(n) => F::WindowUpdate(*n),
                other => panic!("no handler sends {other:?}"),
            };
            let frame = Some(frame);
            Wire::Handler(v1::ServerToClient { stream_id, frame })
        }
    }
}

fn map(md: &Metadata) -> v1::Metadata {
    let mut map = BTreeMap::<String, metadata::Values>::new();
    for (key, value) in md {
        map.entry(key.into()).or_default().val.push(value.into());
    }
    v1::Metadata { md: map }
}

fn any_of(detail: &StatusDetail) -> prost_types::Any {
    prost_types::Any {
        type_url: detail.type_url.clone(),
        value: detail.value.to_vec(),
    }
}

/// The frame that we should read from a message of prost. Keys are sorted.
pub(crate) fn frame(message: Wire) -> Frame {
    let (stream_id, kind) = match message {
        Wire::Caller(message) => {
            use client_to_server::Frame as F;
            let kind = message.frame.map(|frame| match frame {
                F::NewStream(new) => FrameKind::NewStream(NewStream {
                    method: new.method_name,
                    headers: list(new.request_headers),
                    initial_window: new.initial_window_size,
                    revision: new.protocol_revision,
                }),
                F::RequestMessage(m) => FrameKind::Message {
                    size: m.size,
                    data: m.data,
                    compressed: m.compressed,
                },
                F::MoreRequestData(data) => FrameKind::MoreData(data),
                F::HalfClose(()) => FrameKind::HalfClose,
                F::Cancel(()) => FrameKind::Cancel,
                F::WindowUpdate(n) => FrameKind::WindowUpdate(n),
            });
            (message.stream_id, kind)
        }
        Wire::Handler(message) => {
            use server_to_client::Frame as F;
            let kind = message.frame.map(|frame| match frame {
                F::ResponseHeaders(md) => FrameKind::Headers(list(Some(md))),
                F::ResponseMessage(m) => FrameKind::Message {
                    size: m.size,
                    data: m.data,
                    compressed: m.compressed,
                },
                F::MoreResponseData(data) => FrameKind::MoreData(data),
                F::CloseStream(close) => {
                    let status = close.status.unwrap_or_default();
                    let detail = |any: prost_types::Any| StatusDetail {
                        type_url: any.type_url,
                        value: any.value.into(),
                    };
                    FrameKind::Close(CloseStream {
                        trailers: list(close.response_trailers),
                        status: Status {
                            code: Code::from_wire(status.code),
                            message: status.message,
                            details: status.details.into_iter().map(detail).collect(),
                        },
                    })
                }
                F::Settings(settings) => FrameKind::Settings(Settings {
                    revisions: settings.supported_protocol_revisions,
                    initial_window: settings.initial_window_size,
                }),
                F::WindowUpdate(n) => FrameKind::WindowUpdate(n),
            });
            (message.stream_id, kind)
        }
    };
    Frame {
        stream_id: StreamId::new(stream_id),
        kind: kind.unwrap_or(FrameKind::Unknown),
    }
}

fn list(md: Option<v1::Metadata>) -> Metadata {
    let map = md.unwrap_or_default().md;
    map.iter()
        .flat_map(|(key, values)| values.val.iter().map(move |value| (key, value)))
        .collect()
}

/// The same frame with the keys of its metadata sorted, as in prost.
pub(crate) fn sorted(mut frame: Frame) -> Frame {
    match &mut frame.kind {
        FrameKind::NewStream(NewStream { headers: md, .. })
        | FrameKind::Headers(md)
        | FrameKind::Close(CloseStream { trailers: md, .. }) => *md = list(Some(map(md))),
        _ => {}
    }
    frame
}

pub(crate) fn encoded(from: Side, frame: &Frame) -> Bytes {
    let mut buf = BytesMut::new();
    encode(from, &borrowed(frame), &mut buf);
    assert_eq!(buf.len(), encoded_len(from, &borrowed(frame)));
    buf.freeze()
}

/// Whether a frame had lists too long to be kept.
pub(crate) fn is_over_limit(frame: &Frame) -> bool {
    match &frame.kind {
        FrameKind::NewStream(NewStream { headers: md, .. })
        | FrameKind::Headers(md)
        | FrameKind::Close(CloseStream { trailers: md, .. }) => md.is_over_limit(),
        _ => false,
    }
}

/// Both accept the bytes and read the same, or both reject them.
pub(crate) fn agree(from: Side, bytes: &Bytes) -> Result<(), TestCaseError> {
    let ours = decode(from, bytes.clone());
    match (Wire::parse(from, bytes.clone()), ours) {
        (Ok(_), Ok(ours)) if is_over_limit(&ours) => {
            prop_assert!(bytes.len() > 2 * MAX_DETAILS);
        }
        (Ok(theirs), Ok(ours)) => prop_assert_eq!(sorted(ours), frame(theirs)),
        (Err(_), Err(_)) => {}
        (theirs, ours) => prop_assert!(false, "prost: {:?}\nours: {:?}", theirs, ours),
    }
    Ok(())
}
