//! Received frames of the tunnel itself, on stream -1: drain notices, heartbeats and notices.

use super::Connection;
use super::negotiation::LAST_STREAM_KEY;
use crate::event::Event;
use crate::frame::FrameKind;
use crate::streams::StreamId;
use crate::streams::counts::LateFrame;
use crate::streams::store::Reply;
use crate::{Code, ConnectionError, Initiator, Notice, StreamError};

/// The id of the last stream opened; `None` before the first.
pub(super) fn opened(last: i64) -> Option<StreamId> {
    (last >= 0).then_some(StreamId(last))
}

impl Connection {
    /// Handles a frame on stream -1. `late` is what it counts as if it has no meaning there.
    pub(super) fn on_control_frame(
        &mut self,
        kind: FrameKind,
        late: LateFrame,
    ) -> Result<(), ConnectionError> {
        if let FrameKind::Close(close) = &kind
            && self.peer_knows_drain
            && let Some(last) = close.trailers.get(LAST_STREAM_KEY)
            && let Ok(last) = last.parse()
        {
            return self.on_going_away(last);
        }
        if matches!(kind, FrameKind::HalfClose) && self.peer_knows_drain {
            // Only a caller may send this kind.
            return self.on_going_away(self.highest_seen);
        }
        if let FrameKind::Message { size, data, .. } = &kind
            && self.knows_notices
            && usize::try_from(*size).is_ok_and(|size| size == data.len())
            && let Some(notice) = Notice::decode(data)
        {
            self.store.events.push_back(Event::Notice(notice));
            return Ok(());
        }
        match kind {
            // A heartbeat carries no information beyond its arrival.
            FrameKind::WindowUpdate(0) => Ok(()),
            FrameKind::WindowUpdate(1) if self.store.answers_probes => {
                self.store.schedule.echo = true;
                Ok(())
            }
            FrameKind::WindowUpdate(2) if self.on_echo() => Ok(()),
            _ => self.late(late),
        }
    }

    fn on_going_away(&mut self, last: i64) -> Result<(), ConnectionError> {
        if self.peer_draining {
            return self.late(LateFrame::Control);
        }
        self.peer_draining = true;
        // At a handler no id is above `last`, so no call ends.
        for id in self.store.ids().into_iter().filter(|&id| id > last) {
            let mut error = StreamError::new(
                Code::Unavailable,
                "the tunnel is draining; the call was not processed",
                Initiator::Remote,
            );
            error.not_processed = true;
            self.store.fail(id, error, Reply::None);
        }
        let last = opened(last);
        self.store.events.push_back(Event::GoingAway { last });
        Ok(())
    }
}
