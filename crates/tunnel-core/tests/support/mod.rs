//! What the tests of the state machine share: time that stands still until it is moved, two
//! ends joined by a pipe that the test works by hand, and one end that is fed made-up frames.

// Each test program uses a part of it.
#![allow(dead_code)]

pub(crate) mod build;
pub(crate) mod lone;
pub(crate) mod pair;
pub(crate) mod reader;

use tunnel_core::{Config, Event, Frame, FrameKind, FrameRef, FrameSink, Offer, StreamId};

/// What an end of this library offers, without what changes how frames are counted and timed.
pub(crate) fn offer() -> Offer {
    let mut offer = Offer::of(&Config::default());
    offer.heartbeat = None;
    offer.message_credit = false;
    offer
}

/// A configuration without heartbeats, unless the peer offers them.
pub(crate) fn quiet(config: Config, peer: Offer) -> Config {
    match peer.heartbeat {
        Some(_) => config,
        None => config
            .to_builder()
            .heartbeat(None)
            .build()
            .expect("it is valid"),
    }
}

/// What a frame costs beyond its payload, in a budget of these tests.
pub(crate) const FRAME_COST: usize = 10;

/// Keeps the frames that are written, as their receiver will see them.
#[derive(Default)]
pub(crate) struct Written(pub(crate) Vec<Frame>);

impl FrameSink for Written {
    fn frame(&mut self, frame: FrameRef<'_>) -> usize {
        let frame = frame.to_owned();
        let cost = payload_len(&frame) + FRAME_COST;
        self.0.push(frame);
        cost
    }
}

/// The message bytes of a frame.
pub(crate) fn payload_len(frame: &Frame) -> usize {
    match &frame.kind {
        FrameKind::Message { data, .. } | FrameKind::MoreData(data) => data.len(),
        _ => 0,
    }
}

/// A letter for each kind: `S`ettings, `N`ew stream, response `H`eaders, `M`essage, more
/// `d`ata, half-close `E`nd, `C`lose, cancel `X`, window `u`pdate.
pub(crate) fn letters<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> String {
    let letter = |frame: &Frame| match frame.kind {
        FrameKind::Settings(_) => 'S',
        FrameKind::NewStream(_) => 'N',
        FrameKind::Headers(_) => 'H',
        FrameKind::Message { .. } => 'M',
        FrameKind::MoreData(_) => 'd',
        FrameKind::HalfClose => 'E',
        FrameKind::Close(_) => 'C',
        FrameKind::Cancel => 'X',
        FrameKind::WindowUpdate(_) => 'u',
        _ => '?',
    };
    frames.into_iter().map(letter).collect()
}

/// The credit that window updates among these frames return, in order.
pub(crate) fn updates<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> Vec<u32> {
    let update = |frame: &Frame| match frame.kind {
        FrameKind::WindowUpdate(n) => Some(n),
        _ => None,
    };
    frames.into_iter().filter_map(update).collect()
}

/// How often one of these events occurs.
pub(crate) fn count(events: &[Event], event: &Event) -> usize {
    events.iter().filter(|e| *e == event).count()
}

/// The streams that these events open.
pub(crate) fn opened(events: &[Event]) -> Vec<StreamId> {
    let id = |event: &Event| match event {
        Event::Opened { id, .. } => Some(*id),
        _ => None,
    };
    events.iter().filter_map(id).collect()
}

/// Bytes that differ from their neighbours, so that a piece out of place is seen.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}
