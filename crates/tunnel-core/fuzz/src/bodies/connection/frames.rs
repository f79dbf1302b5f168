//! Frames of a peer that are nearly right, because those get furthest.

use tunnel_core::frame::{CloseStream, NewStream, Settings};
use tunnel_core::{Code, Frame, FrameKind, Metadata, Side, Status, StreamId};

use super::super::Input;
use super::peer::Peer;

/// Metadata of a choice: nothing, a deadline, or about as much as the limit.
pub(crate) fn metadata(choice: u8, limit: usize) -> Metadata {
    let timeout = |value: &str| [("grpc-timeout", value)].into_iter().collect();
    match choice % 8 {
        0..=2 => Metadata::new(),
        3 => timeout("15m"),
        4 => timeout("0S"),
        5 => timeout("1H"),
        6 => [("k", "v"), ("K", "v"), ("k", "w")].into_iter().collect(),
        _ => {
            let value = "v".repeat(limit.saturating_sub(33) + usize::from(choice / 8) % 2);
            [("k", value)].into_iter().collect()
        }
    }
}

/// A frame of the peer of `side`. The content of message data is filled in later.
pub(crate) fn frame(side: Side, limit: usize, peer: &Peer, input: &mut Input<'_>) -> Frame {
    let choice = input.u8();
    if side == Side::Handler && choice % 16 < 3 {
        let stream_id = peer.next_id(input.u8());
        return Frame {
            stream_id: StreamId::new(stream_id),
            kind: new_stream(limit, input),
        };
    }
    let stream_id = match input.u8() {
        255 => input.u64() as i64,
        254 => StreamId::CONTROL.value(),
        253 => 0,
        n => peer.known_id(n.into()),
    };
    let kind = match (choice % 16, side) {
        (0..=5, _) => message(input),
        (6..=8, _) => FrameKind::MoreData(data(input)),
        (9 | 10, _) => FrameKind::WindowUpdate(window(input)),
        (11, Side::Handler) => FrameKind::HalfClose,
        (12, Side::Handler) => FrameKind::Cancel,
        (11 | 12, Side::Caller) => FrameKind::Headers(metadata(input.u8(), limit)),
        (13, Side::Caller) => FrameKind::Close(CloseStream {
            trailers: metadata(input.u8(), limit),
            status: Status::new(Code::from_wire(input.u8().into()), "why"),
        }),
        (14, Side::Caller) => going_away(input),
        (13, Side::Handler) => FrameKind::HalfClose,
        (14, Side::Handler) => FrameKind::Unknown,
        _ => wrong(side, input),
    };
    Frame {
        stream_id: StreamId::new(stream_id),
        kind,
    }
}

fn new_stream(limit: usize, input: &mut Input<'_>) -> FrameKind {
    let choice = input.u8();
    FrameKind::NewStream(NewStream {
        method: match choice % 16 {
            0 => "/",
            1 => "",
            2 => "c/d",
            _ => "/a/b",
        }
        .to_owned(),
        headers: metadata(input.u8(), limit),
        initial_window: window(input),
        revision: match choice / 16 {
            0..=10 => 1,
            11..=14 => 0,
            _ => input.number() as i32,
        },
    })
}

/// A message: whole or not, empty, compressed, or with a size that does not match its data.
fn message(input: &mut Input<'_>) -> FrameKind {
    let choice = input.u8();
    let data = data(input);
    let size = match choice % 8 {
        0..=4 => data.len() as u32,
        5 | 6 => data.len() as u32 * (2 + u32::from(choice / 64)),
        _ => input.number(),
    };
    FrameKind::Message {
        size,
        data,
        compressed: choice / 8 % 8 == 1,
    }
}

fn data(input: &mut Input<'_>) -> bytes::Bytes {
    let len = match input.u8() {
        n @ 0..200 => n.into(),
        n => usize::from(n - 200) * 400,
    };
    vec![0; len].into()
}

fn window(input: &mut Input<'_>) -> u32 {
    match input.u8() {
        255 => input.u32(),
        254 => i32::MAX as u32,
        253 => 65_536,
        n => u32::from(n) * 4,
    }
}

/// A drain notice of a handler, on any stream.
fn going_away(input: &mut Input<'_>) -> FrameKind {
    let last = i64::from(input.u8()) - 1;
    let trailers = [("grpctunnel-last-stream", last.to_string())];
    FrameKind::Close(CloseStream {
        trailers: trailers.into_iter().collect(),
        status: Status::OK,
    })
}

/// Mostly an unknown frame, sometimes one that ends the tunnel.
fn wrong(side: Side, input: &mut Input<'_>) -> FrameKind {
    match (input.u8(), side) {
        (255, Side::Caller) => FrameKind::HalfClose,
        (254, Side::Caller) => FrameKind::NewStream(NewStream::default()),
        (255, Side::Handler) => FrameKind::Headers(Metadata::new()),
        (253, _) => settings(input),
        _ => FrameKind::Unknown,
    }
}

fn settings(input: &mut Input<'_>) -> FrameKind {
    FrameKind::Settings(Settings {
        revisions: vec![0, input.number() as i32],
        initial_window: window(input),
    })
}
