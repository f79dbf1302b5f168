//! Support for tests of the state machine: virtual time, two ends joined by a pipe that the test
//! controls, and one end that receives made-up frames.

// Each test program uses a part of it.
#![allow(dead_code)]

pub(crate) mod build;
pub(crate) mod lone;
pub(crate) mod pair;
pub(crate) mod reader;

use tunnel_core::{Config, Event, Frame, FrameKind, FrameRef, FrameSink, Offer, StreamId};

/// The offer of an end of this library, without heartbeats, probes and message credit.
pub(crate) fn offer() -> Offer {
    let mut offer = Offer::of(&Config::default());
    offer.heartbeat = None;
    offer.echo = false;
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

/// The cost of a frame beside its payload in the budget of a test.
pub(crate) const FRAME_COST: usize = 10;

/// Collects written frames in the form that the receiver sees.
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

/// How often an event is among these.
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
