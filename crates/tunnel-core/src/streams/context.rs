//! What an operation on a stream changes beside the stream: counters, queues and events.

use std::collections::VecDeque;
use std::time::Instant;

use super::StreamId;
use super::counts::Counts;
use super::recv::{RecvEnd, Taken};
use super::released::Outgoing;
use super::schedule::Schedule;
use super::state::{RecvState, SendState};
use super::stream::Stream;
use crate::event::Event;
use crate::{Config, Limit, StreamFault};

/// The store without its table: what can change while a stream is borrowed from it.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) config: &'a Config,
    pub(crate) counts: &'a mut Counts,
    pub(crate) schedule: &'a mut Schedule,
    pub(crate) events: &'a mut VecDeque<Event>,
    pub(crate) out: &'a mut Outgoing,
}

impl Context<'_> {
    pub(crate) fn tell_reader(&mut self, stream: &mut Stream) {
        stream.recv.reader_waits = false;
        if !stream.recv.reader_told {
            stream.recv.reader_told = true;
            if stream.announced {
                self.events.push_back(Event::Readable(StreamId(stream.id)));
            }
        }
    }

    /// Notifies a waiting writer when the queue has drained to half of its watermark.
    pub(crate) fn tell_writer(&mut self, stream: &mut Stream) {
        if stream.send.writer_waits && stream.send.queued() <= self.config.v.send_buffer / 2 {
            stream.send.writer_waits = false;
            self.events.push_back(Event::Writable(StreamId(stream.id)));
        }
    }

    /// Puts a stream where its pending frames will be seen.
    pub(crate) fn enqueue(&mut self, stream: &mut Stream) {
        if !stream.in_control && stream.has_control() {
            stream.in_control = true;
            self.schedule.control.push(stream.id);
        }
        self.enqueue_data(stream);
    }

    /// Puts a stream in the data queue if it may send data: it has some, has credit, and its
    /// beginning was written. Without credit it is stalled.
    pub(crate) fn enqueue_data(&mut self, stream: &mut Stream) {
        if stream.in_data || !stream.send.has_begun() {
            return;
        }
        if stream.send.can_send_data() {
            stream.in_data = true;
            self.schedule.data.push(stream.id);
            self.note_stall(stream, false);
        } else {
            self.note_stall(stream, stream.send.has_data());
        }
    }

    /// Notes whether a stream has data to send and no credit for it.
    pub(crate) fn note_stall(&mut self, stream: &mut Stream, stalled: bool) {
        if stream.stalled != stalled {
            self.counts.stalls.set(&mut stream.stalled, stalled);
        }
    }

    /// Marks that nothing more is sent on a stream, and notifies its writer.
    pub(crate) fn end_sending(&mut self, stream: &mut Stream) {
        if stream.send.state != SendState::Done {
            self.counts.queued -= stream.send.abort(self.out);
            self.note_stall(stream, false);
            stream.send.writer_waits = false;
            self.events.push_back(Event::Writable(StreamId(stream.id)));
        }
    }

    /// Counts received payload and takes a sample of the round-trip time from it.
    pub(crate) fn arrived(&mut self, stream: &mut Stream, bytes: usize, now: Option<Instant>) {
        self.counts.unread += bytes;
        self.counts.bytes_received += bytes as u64;
        if let (Some(window), Some(now)) = (&mut stream.recv.window, now)
            && let Some(sample) = window.round_trip(now)
        {
            self.counts.round_trip.sample(sample);
        }
        if stream.recv.window.is_none() {
            self.counts.unwindowed_unread += bytes;
            // Only whole messages count, because only further input can complete the others.
            self.counts.unwindowed_messages += usize::from(stream.recv.arriving() == 0);
        }
        self.count_overhead(stream);
    }

    fn count_overhead(&mut self, stream: &mut Stream) {
        let overhead = stream.recv.overhead();
        let counted = std::mem::replace(&mut stream.recv.counted_overhead, overhead);
        self.counts.overhead = self.counts.overhead - counted as usize + overhead as usize;
    }

    /// Checks the limit on empty messages that cost no window.
    pub(crate) fn check_empty(&self, stream: &Stream, size: u32) -> Result<(), StreamFault> {
        let free = stream.recv.message_cost == 0;
        let full = self.counts.unread_empty >= self.config.v.max_unread_empty_messages;
        if size == 0 && free && full {
            return Err(StreamFault::Limit(Limit::UnreadEmptyMessages));
        }
        Ok(())
    }

    /// Counts data that the application took.
    pub(crate) fn taken(&mut self, stream: &mut Stream, taken: Taken) {
        let Taken {
            bytes,
            begun,
            ended,
            empty,
        } = taken;
        self.counts.unread -= bytes;
        self.counts.unread_empty -= empty;
        let from_held = stream.recv.held.min(bytes);
        stream.recv.held -= from_held;
        self.counts.spare_used -= from_held;
        let rest = bytes - from_held;
        match &mut stream.recv.window {
            Some(window) => window.take(rest + begun * usize::from(stream.recv.message_cost)),
            None => {
                self.counts.unwindowed_unread -= rest;
                self.counts.unwindowed_messages -= ended;
            }
        }
        self.count_overhead(stream);
    }

    /// Returns credit for a large message that is held back, so that its rest can arrive. The held
    /// bytes count against the spare memory. Returns `false` if no memory is left and the rest
    /// cannot arrive without credit.
    pub(crate) fn hold(&mut self, stream: &mut Stream) -> bool {
        let more = stream.recv.unread() - stream.recv.held;
        if more == 0 {
            return true;
        }
        let more = more.min(self.counts.spare_left(self.config));
        stream.recv.held += more;
        self.counts.spare_used += more;
        match &mut stream.recv.window {
            Some(window) => {
                window.take(more);
                !window.is_exhausted()
            }
            None => {
                self.counts.unwindowed_unread -= more;
                stream.recv.unread() == stream.recv.held || !self.counts.paused
            }
        }
    }

    /// Lets the window grow if it limits the sender. Call it while the reader has read everything
    /// and waits.
    pub(crate) fn grow_window(&mut self, stream: &mut Stream) {
        if let Some(window) = &mut stream.recv.window
            && stream.recv.reader_waits
            && window.holds_back_sender(stream.recv.message_cost)
        {
            let most = self.counts.growth_left(self.config);
            let useful = self.counts.round_trip.useful_window();
            let growth = window.grow(self.config.v.max_window.min(useful), most);
            self.counts.spare_used += growth as usize;
            self.enqueue(stream);
        }
    }

    /// Drops the unread data of a stream.
    pub(crate) fn discard_unread(&mut self, stream: &mut Stream) {
        self.taken(stream, stream.recv.unread_all());
        stream.recv.clear(self.out);
        self.count_overhead(stream);
    }

    /// The stream has ended cleanly. Unread data before the end stays readable.
    pub(crate) fn end_receiving(&mut self, stream: &mut Stream, end: RecvEnd) {
        if matches!(end, RecvEnd::Closed(_)) {
            allow_late_frames(stream, self.counts);
        }
        stream.recv.state = RecvState::Ended;
        stream.recv.end = Some(end);
        self.tell_reader(stream);
    }
}

/// From now on the peer's frames for a stream are ignored. Allows, once, for the frames that may be
/// in flight.
pub(super) fn allow_late_frames(stream: &mut Stream, counts: &mut Counts) {
    if !std::mem::replace(&mut stream.late_allowed, true) {
        let left = stream.recv.window.as_ref().map(|w| w.remaining());
        let cost = stream.recv.message_cost.into();
        counts.allow_late_frames(left, stream.send.late_updates.into(), cost);
    }
}
