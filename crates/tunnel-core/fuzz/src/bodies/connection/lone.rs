//! One end, and a peer that sends anything in any order.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tunnel_core::frame::Settings;
use tunnel_core::frame::codec::decode;
use tunnel_core::{
    Code, ConnectionError, Frame, FrameKind, Side, Status, StreamId, TransportCause,
};

use super::super::Input;
use super::end::End;
use super::setup::Setup;
use super::{bytes, frames, op};

pub(crate) struct Lone(pub(crate) End);

impl Lone {
    /// A tunnel whose outer call is open and, at a caller that negotiates, with settings.
    pub(crate) fn new(setup: Setup, input: &mut Input<'_>) -> Self {
        let mut lone = Self(End::new(setup, Instant::now()));
        if lone.0.setup.side == Side::Caller && lone.0.setup.offer.negotiate {
            let revisions: &[i32] = input.pick(&[&[0, 1][..], &[1], &[0], &[], &[5]]);
            let settings = Settings {
                revisions: revisions.to_vec(),
                initial_window: input.pick(&[65_536, 0, 1, 100, u32::MAX]),
            };
            lone.feed(Frame {
                stream_id: StreamId::CONTROL,
                kind: FrameKind::Settings(settings),
            });
        }
        lone.0.drain_events();
        lone
    }

    pub(crate) fn apply(&mut self, input: &mut Input<'_>) {
        let (side, limit) = (self.0.setup.side, self.0.setup.metadata);
        match (input.u8() & 0x7f) % op::COUNT {
            op::RAW => {
                let len = input.u16().into();
                let bytes = Bytes::copy_from_slice(input.take(len));
                if let Ok(frame) = decode(side.peer(), bytes) {
                    self.feed(frame);
                }
            }
            op::FRAME => {
                let frame = frames::frame(side, limit, &self.0.peer, input);
                self.feed(frame);
            }
            op::PASS => self.0.pass(Duration::from_millis(input.u8().into())),
            op::END => self.end(input.u8()),
            code => self.0.apply(code, input),
        }
        self.0.drain_events();
        self.0.pipe.clear();
    }

    /// The peer sends a frame, with payload that belongs to its place in the stream.
    fn feed(&mut self, mut frame: Frame) {
        let (end, id) = (&mut self.0, frame.stream_id.value());
        if let FrameKind::Message { data, .. } | FrameKind::MoreData(data) = &mut frame.kind {
            let len = data.len().min(end.setup.payload.saturating_sub(end.fed));
            let at = end.calls.get(&id).map_or(0, |call| call.fed);
            *data = bytes(end.setup.side.peer(), id, at, len);
        }
        // `End` checks what follows from an error.
        let _ = end.feed(frame);
    }

    fn end(&mut self, choice: u8) {
        let conn = &mut self.0.conn;
        match choice {
            255 => conn.close(),
            254 => conn.close_with(Status::new(Code::Aborted, "w")),
            253 => conn.handle_end(),
            252 => conn.handle_lost(ConnectionError::TransportLost(TransportCause::Other.into())),
            _ => {}
        }
    }
}
