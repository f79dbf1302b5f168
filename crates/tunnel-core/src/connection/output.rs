//! Sent frames. They are chosen and encoded when the transport calls for them.

use std::time::Instant;

use super::Connection;
use super::negotiation::{LAST_STREAM_KEY, NOT_PROCESSED_KEY};
use super::phase::Phase;
use crate::event::Note;
use crate::frame::{CloseStream, FrameKindRef, FrameRef, FrameSink, Settings};
use crate::streams::context::Context;
use crate::streams::schedule::Heartbeat;
use crate::streams::send::Head;
use crate::streams::state::SendState;
use crate::streams::stream::Stream;
use crate::timer::Timer;
use crate::{Metadata, Notice, Side, Status, StreamId};

const CONTROL: i64 = StreamId::CONTROL.0;

/// Counts what a sink takes against a budget.
struct Writer<'a, S> {
    sink: &'a mut S,
    now: Instant,
    written: usize,
    budget: usize,
}

impl<S: FrameSink> Writer<'_, S> {
    fn has_room(&self) -> bool {
        self.written < self.budget
    }

    fn write(&mut self, id: i64, kind: FrameKindRef<'_>) {
        let stream_id = StreamId(id);
        self.written += self.sink.frame(FrameRef { stream_id, kind });
    }
}

/// The outcome of a stream's turn.
enum Turn {
    /// The stream has no more frames of this class to send now.
    Idle,
    /// The stream has more to send and goes back into the queue.
    More,
    /// Handler: the stream's end was written, so the stream leaves the table.
    Finished,
}

impl Connection {
    /// Writes the next frames into `sink` until about `budget` bytes (as the sink counts them)
    /// are written or nothing is left; returns how many were. The budget is exceeded by at
    /// most one frame. Timers that are due go first.
    ///
    /// A good budget is about 64 KiB: enough frames share the cost of a write, and urgent frames do
    /// not wait long behind a batch.
    pub fn transmit(&mut self, now: Instant, budget: usize, sink: &mut impl FrameSink) -> usize {
        self.fire(now, false);
        if self.phase != Phase::Ready {
            return 0;
        }
        let mut writer = Writer {
            sink,
            // Earlier frames of the stream go first.
            now: self.now.unwrap_or(now),
            written: 0,
            budget,
        };
        let highest = self.highest_sent;
        self.write_tunnel_frames(&mut writer);
        self.write_control(&mut writer);
        self.write_data(&mut writer);
        let (written, now) = (writer.written, writer.now);
        if written > 0 {
            self.sent(now);
        }
        if self.highest_sent > highest {
            self.unanswered_since.get_or_insert(now);
        }
        self.after_change();
        written
    }

    fn write_tunnel_frames<S: FrameSink>(&mut self, w: &mut Writer<'_, S>) {
        if self.store.schedule.settings && w.has_room() {
            self.store.schedule.settings = false;
            let settings = Settings {
                revisions: self.config().revisions().to_wire(),
                initial_window: self.config().initial_window(),
            };
            w.write(CONTROL, FrameKindRef::Settings(&settings));
        }
        if w.has_room()
            && let Some(heartbeat) = self.store.schedule.heartbeat.take()
        {
            w.write(CONTROL, FrameKindRef::WindowUpdate(heartbeat as u32));
            self.heartbeat_sent(heartbeat, w.now);
        }
        if w.has_room() && std::mem::take(&mut self.store.schedule.echo) {
            w.write(CONTROL, FrameKindRef::WindowUpdate(Heartbeat::Echo as u32));
        }
        if w.has_room()
            && let Some(notice) = self.store.schedule.notice.take()
        {
            write_notice(w, &notice);
        }
        if w.has_room()
            && let Some(last) = self.store.schedule.going_away.take()
        {
            write_going_away(w, self.store.side, last);
        }
        while w.has_room() {
            match self.store.schedule.cancels.pop(w.now) {
                Ok(Some(id)) => w.write(id, FrameKindRef::Cancel),
                Ok(None) => break,
                Err(at) => self.store.timers.set(Timer::Cancels, at),
            }
        }
        while w.has_room()
            && let Some(refusal) = self.store.schedule.refusals.pop()
        {
            let mark = refusal.not_processed.then_some((NOT_PROCESSED_KEY, "1"));
            let trailers: Metadata = mark.into_iter().collect();
            let kind = FrameKindRef::Close {
                trailers: &trailers,
                status: &refusal.status,
            };
            w.write(refusal.id, kind);
        }
    }

    fn write_control<S: FrameSink>(&mut self, w: &mut Writer<'_, S>) {
        let side = self.store.side;
        while w.has_room()
            && let Some(id) = self.store.schedule.control.pop()
        {
            let highest = &mut self.highest_sent;
            let Some((stream, mut rest)) = self.store.split(id) else {
                self.store.schedule.control.skipped();
                continue;
            };
            let turn = write_stream_control(stream, &mut rest, w, side, highest);
            match turn {
                Turn::More => rest.schedule.control.push_front(id),
                Turn::Idle => stream.in_control = false,
                Turn::Finished => {
                    stream.in_control = false;
                    self.store.remove(id);
                }
            }
        }
    }

    fn write_data<S: FrameSink>(&mut self, w: &mut Writer<'_, S>) {
        let side = self.store.side;
        while w.has_room()
            && let Some(id) = self.store.schedule.data.pop()
        {
            let Some((stream, mut rest)) = self.store.split(id) else {
                self.store.schedule.data.skipped();
                continue;
            };
            match write_turn(stream, &mut rest, w, side) {
                Turn::More => rest.schedule.data.push(id),
                Turn::Idle => stream.in_data = false,
                Turn::Finished => {
                    stream.in_data = false;
                    self.store.remove(id);
                }
            }
        }
    }

    /// A status that fits a frame: over the limit it keeps its code and as much of its message
    /// as fits.
    pub(super) fn bounded_status(&mut self, mut status: Status) -> Status {
        let limit = self.config().max_metadata_size();
        if status.size() <= limit {
            return status;
        }
        let size = status.size();
        self.note(Note::StatusCut { size, limit });
        status.details.clear();
        let mut end = status.message.len().min(limit);
        while !status.message.is_char_boundary(end) {
            end -= 1;
        }
        status.message.truncate(end);
        status
    }
}

fn write_notice<S: FrameSink>(w: &mut Writer<'_, S>, notice: &Notice) {
    let text = notice.encode();
    let kind = FrameKindRef::Message {
        // Cannot fail: a notice fits a chunk.
        size: u32::try_from(text.len()).unwrap_or_default(),
        data: text.as_bytes(),
        compressed: false,
    };
    w.write(CONTROL, kind);
}

/// The drain notice. A handler names the last stream it serves; a caller half-closes the
/// tunnel as it would a stream.
fn write_going_away<S: FrameSink>(w: &mut Writer<'_, S>, side: Side, last: i64) {
    match side {
        Side::Caller => w.write(CONTROL, FrameKindRef::HalfClose),
        Side::Handler => {
            let trailers: Metadata = [(LAST_STREAM_KEY, last.to_string())].into_iter().collect();
            let kind = FrameKindRef::Close {
                trailers: &trailers,
                status: &Status::OK,
            };
            w.write(CONTROL, kind);
        }
    }
}

/// Writes a stream's frames other than data: its beginning, credit, and its end if no data is
/// queued before it.
fn write_stream_control<S: FrameSink>(
    stream: &mut Stream,
    rest: &mut Context<'_>,
    w: &mut Writer<'_, S>,
    side: Side,
    highest_sent: &mut i64,
) -> Turn {
    if let Some(opening) = stream.send.opening.take() {
        let (initial_window, revision) = match &stream.recv.window {
            Some(window) => (window.size(), 1),
            None => (0, 0),
        };
        let kind = FrameKindRef::NewStream {
            method: &opening.method,
            headers: &opening.headers,
            initial_window,
            revision,
        };
        w.write(stream.id, kind);
        *highest_sent = stream.id;
        rest.enqueue_data(stream);
    }
    if matches!(stream.send.head, Head::Pending(_)) {
        if !w.has_room() {
            return Turn::More;
        }
        let head = std::mem::replace(&mut stream.send.head, Head::Written);
        if let Head::Pending(headers) = head {
            w.write(stream.id, FrameKindRef::Headers(&headers));
        }
        rest.enqueue_data(stream);
    }
    if stream.update_is_due() {
        if !w.has_room() {
            return Turn::More;
        }
        write_update(stream, w);
    }
    if stream.send.state == SendState::Finishing && !stream.send.has_data() {
        if !w.has_room() {
            return Turn::More;
        }
        return write_end(stream, w, side);
    }
    Turn::Idle
}

fn write_update<S: FrameSink>(stream: &mut Stream, w: &mut Writer<'_, S>) {
    if let Some(window) = &mut stream.recv.window {
        let credit = window.grant(w.now);
        w.write(stream.id, FrameKindRef::WindowUpdate(credit));
    }
}

/// The cost of a frame in its stream's turn beyond the payload, in bytes. It bounds the empty
/// messages of a turn.
const FRAME_COST: usize = 32;

/// Writes the data of a stream's turn: one chunk, or the small messages that fit one. Turns are
/// measured in bytes, so they are fair to large and small messages. Sending small messages together
/// saves a lookup for each.
fn write_turn<S: FrameSink>(
    stream: &mut Stream,
    rest: &mut Context<'_>,
    w: &mut Writer<'_, S>,
    side: Side,
) -> Turn {
    let chunk = rest.config.v.chunk_size;
    let before = stream.send.queued();
    let mut used = 0;
    while let Some(kind) = stream.send.next_chunk(chunk) {
        let (begins, len) = match kind {
            FrameKindRef::Message { data, .. } => (1, data.len()),
            FrameKindRef::MoreData(data) => (0, data.len()),
            _ => (0, 0),
        };
        w.write(stream.id, kind);
        stream.send.advance(len, rest.out);
        rest.counts.bytes_sent += len as u64;
        rest.counts.messages_sent += begins;
        used += len + FRAME_COST;
        let next = stream.send.next_len(chunk);
        if !w.has_room() || next.is_none_or(|next| used + next > chunk) {
            break;
        }
    }
    if used == 0 {
        return Turn::Idle;
    }
    rest.counts.queued -= before - stream.send.queued();
    rest.tell_writer(stream);
    if stream.send.has_data() {
        let stalled = !stream.send.can_send_data();
        rest.note_stall(stream, stalled);
        return if stalled { Turn::Idle } else { Turn::More };
    }
    if stream.send.state == SendState::Finishing {
        if w.has_room() {
            return write_end(stream, w, side);
        }
        rest.enqueue(stream);
    }
    Turn::Idle
}

fn write_end<S: FrameSink>(stream: &mut Stream, w: &mut Writer<'_, S>, side: Side) -> Turn {
    stream.send.state = SendState::Done;
    match side {
        Side::Caller => {
            w.write(stream.id, FrameKindRef::HalfClose);
            Turn::Idle
        }
        Side::Handler => {
            let closing = stream.send.closing.take();
            let CloseStream { trailers, status } = match closing {
                Some(closing) => *closing,
                None => CloseStream {
                    trailers: Metadata::new(),
                    status: Status::OK,
                },
            };
            let kind = FrameKindRef::Close {
                trailers: &trailers,
                status: &status,
            };
            w.write(stream.id, kind);
            Turn::Finished
        }
    }
}
