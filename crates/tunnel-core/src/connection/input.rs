//! Received frames.
//!
//! A protocol error ends the stream that it concerns. The tunnel ends only when its rest cannot be
//! understood, or at a limit that protects the whole tunnel.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Connection;
use super::control::opened;
use super::phase::Phase;
use crate::event::{Event, Note};
use crate::frame::{CloseStream, Frame, FrameKind, NewStream};
use crate::streams::body::Begin;
use crate::streams::context::Context;
use crate::streams::counts::LateFrame;
use crate::streams::flow::Window;
use crate::streams::recv::RecvEnd;
use crate::streams::state::RecvState;
use crate::streams::store::Reply;
use crate::streams::stream::Stream;
use crate::streams::{Revision, StreamId};
use crate::timer::{Timer, timeout_of};
use crate::{
    Code, ConnectionError, EndReason, Initiator, Limit, Metadata, Side, Status, StreamError,
    StreamFault,
};

/// How long calls in flight may take on a tunnel whose peer shuts down without drain notices.
const STOPPING: Duration = Duration::from_secs(1);

/// The outcome of a frame on a live stream.
type Outcome = Result<Handled, StreamFault>;

enum Handled {
    /// The frame was useful.
    Useful,
    /// The frame changed nothing.
    Empty,
    /// Handler: the caller has cancelled.
    Cancelled,
    /// Caller: the stream failed without a fault of the peer.
    Failed(StreamError),
    /// Caller: the call was refused because the peer shuts down.
    Stopping,
}

/// Handler: the refusal of a new stream.
struct Refused {
    status: Status,
    /// Whether the call is safe to retry.
    not_processed: bool,
    /// The limit that was reached, if one was.
    limit: Option<Limit>,
}

impl Connection {
    /// Takes one frame from the peer. Timers that are due go first.
    ///
    /// # Errors
    ///
    /// The error that ended the tunnel. Frames after the end are ignored.
    pub fn handle_frame(&mut self, now: Instant, frame: Frame) -> Result<(), ConnectionError> {
        self.fire(now, false);
        self.heard(self.now.unwrap_or(now));
        self.hear_ready();
        let result = match self.phase {
            Phase::Ended(_) => return Ok(()),
            Phase::Opening => Err(ConnectionError::SettingsMissing {
                id: frame.stream_id,
            }),
            Phase::AwaitingSettings => self.on_first_frame(frame),
            Phase::Ready => self.on_frame(frame),
        };
        if let Err(error) = &result {
            self.end(EndReason::Error(error.clone()));
        }
        self.after_change();
        result
    }

    fn on_first_frame(&mut self, frame: Frame) -> Result<(), ConnectionError> {
        let id = frame.stream_id;
        match frame.kind {
            FrameKind::Settings(settings) if id == StreamId::CONTROL => self.on_settings(&settings),
            FrameKind::Settings(_) => Err(ConnectionError::UnexpectedSettings { id }),
            _ => Err(ConnectionError::SettingsMissing { id }),
        }
    }

    fn on_frame(&mut self, frame: Frame) -> Result<(), ConnectionError> {
        let id = frame.stream_id;
        self.check_direction(id, &frame.kind)?;
        if let FrameKind::NewStream(new) = frame.kind {
            return self.on_new_stream(id.0, new);
        }
        if id == StreamId::CONTROL {
            let late = late_frame(&frame.kind);
            return self.on_control_frame(frame.kind, late);
        }
        if matches!(frame.kind, FrameKind::Settings(_)) {
            return Err(ConnectionError::UnexpectedSettings { id });
        }
        let highest = self.highest_known();
        if id.0 > highest {
            let highest = opened(highest);
            return Err(ConnectionError::UnknownStream { id, highest });
        }
        let id = id.0;
        let late = late_frame(&frame.kind);
        let is_update = matches!(frame.kind, FrameKind::WindowUpdate(_));
        let outcome = match self.store.split(id) {
            Some((stream, _)) if !self.peer_knows_drain && says_stopping(stream, &frame.kind) => {
                Ok(Handled::Stopping)
            }
            // A caller's stream may end before its application has read everything.
            Some((stream, rest)) if !is_over(stream, rest_side(&frame.kind)) => {
                on_stream_frame(stream, rest, frame.kind, self.now)
            }
            Some((stream, _)) if is_update && stream.send.late_updates > 0 => {
                stream.send.late_updates -= 1;
                return Ok(());
            }
            _ => return self.late(late),
        };
        self.settle_outcome(id, outcome)
    }

    /// The highest stream id that the peer may use in a frame.
    fn highest_known(&self) -> i64 {
        match self.store.side {
            Side::Caller => self.highest_sent,
            Side::Handler => self.highest_seen,
        }
    }

    fn check_direction(&self, id: StreamId, kind: &FrameKind) -> Result<(), ConnectionError> {
        let of = match kind {
            FrameKind::NewStream(_) | FrameKind::HalfClose | FrameKind::Cancel => Side::Caller,
            FrameKind::Settings(_) | FrameKind::Headers(_) | FrameKind::Close(_) => Side::Handler,
            _ => return Ok(()),
        };
        if of == self.store.side {
            return Err(ConnectionError::WrongDirection { id, side: of });
        }
        Ok(())
    }

    pub(super) fn late(&mut self, frame: LateFrame) -> Result<(), ConnectionError> {
        let message_cost = self.store.message_cost.into();
        self.store
            .counts
            .late_frame(frame, message_cost)
            .map_err(ConnectionError::Limit)
    }

    fn on_new_stream(&mut self, id: i64, new: NewStream) -> Result<(), ConnectionError> {
        if id < 0 {
            return Err(ConnectionError::NegativeId { id: StreamId(id) });
        }
        let highest = self.highest_seen;
        if id <= highest {
            let (id, highest) = (StreamId(id), StreamId(highest));
            return Err(ConnectionError::IdNotIncreasing { id, highest });
        }
        // From here on the id counts as used, even if the call is refused: its late frames are
        // ignored.
        self.highest_seen = id;
        match self.check_new_stream(&new) {
            Ok((revision, credit)) => {
                self.store.counts.useful_frame();
                self.accept(id, new, revision, credit);
                Ok(())
            }
            Err(Refused {
                status,
                not_processed,
                limit,
            }) => {
                self.store.counts.limits.count(limit);
                let window = match Revision::from_wire(new.revision) {
                    Some(Revision::Zero) => None,
                    _ => Some(u64::from(self.config().initial_window())),
                };
                let cost = self.store.message_cost.into();
                self.store.counts.allow_late_frames(window, 0, cost);
                self.store.refuse(id, status, not_processed, Reply::Needed);
                Ok(())
            }
        }
    }

    fn check_new_stream(&self, new: &NewStream) -> Result<(Revision, Window), Refused> {
        let fault = |fault: StreamFault| Refused {
            status: StreamError::fault(&fault, Side::Handler).to_status(),
            not_processed: false,
            limit: fault.limit(),
        };
        if self.draining {
            let status = Status::new(
                Code::Unavailable,
                "the tunnel is draining; the call was not processed",
            );
            return Err(Refused {
                status,
                not_processed: true,
                limit: None,
            });
        }
        let revision = self
            .accepts_revision(new.revision)
            .ok_or_else(|| fault(StreamFault::RevisionNotOffered(new.revision)))?;
        if new.method.is_empty() || new.method == "/" {
            return Err(fault(StreamFault::EmptyMethod));
        }
        if new.headers.size().saturating_add(new.method.len()) > self.config().max_metadata_size() {
            return Err(fault(StreamFault::Limit(Limit::MetadataSize)));
        }
        let credit = match revision {
            Revision::Zero => Window::default(),
            Revision::One => {
                Window::new(new.initial_window).ok_or_else(|| fault(StreamFault::WindowOverflow))?
            }
        };
        if timeout_of(&new.headers).is_some_and(|t| t.is_zero()) {
            return Err(Refused {
                status: StreamError::deadline(Side::Handler).to_status(),
                not_processed: false,
                limit: None,
            });
        }
        if self.store.room() == 0 {
            return Err(Refused {
                not_processed: true,
                ..fault(StreamFault::Limit(Limit::ConcurrentStreams))
            });
        }
        Ok((revision, credit))
    }

    fn accept(&mut self, id: i64, new: NewStream, revision: Revision, credit: Window) {
        let deadline = match (self.now, timeout_of(&new.headers)) {
            (Some(now), Some(timeout)) => now.checked_add(timeout),
            _ => None,
        };
        let stream = self.store.new_stream(id, revision, credit, None);
        let method = match new.method.strip_prefix('/') {
            Some(_) => new.method,
            None => format!("/{}", new.method),
        };
        let opened = Event::Opened {
            id: StreamId(id),
            method,
            headers: new.headers,
            deadline,
        };
        self.store.accept(stream, deadline, opened);
    }

    /// Acts on the outcome of a stream's frame.
    fn settle_outcome(&mut self, id: i64, outcome: Outcome) -> Result<(), ConnectionError> {
        let side = self.store.side;
        match outcome {
            Ok(Handled::Useful) => {
                self.store.counts.useful_frame();
                self.store.enforce_buffer_cap();
            }
            Ok(Handled::Empty) => {
                let v = &self.store.config.v;
                let result = self.store.counts.empty_frame(v);
                return result.map_err(ConnectionError::Limit);
            }
            Ok(Handled::Cancelled) => self.on_cancel(id),
            Ok(Handled::Failed(error)) => self.store.fault(id, error, Reply::None),
            Ok(Handled::Stopping) => self.on_stopping(id),
            Err(fault) => {
                self.store.counts.limits.count(fault.limit());
                let error = StreamError::fault(&fault, side);
                self.store.fault(id, error, Reply::Needed);
                let id = StreamId(id);
                self.note(Note::PeerFault { id, fault });
            }
        }
        Ok(())
    }

    /// Caller: a peer without drain notices is shutting down, as its refusal of a call shows. The
    /// tunnel takes no more calls, as after a drain notice. Calls in flight have little time,
    /// because the Go library stops reading the tunnel at the next frame of the call that it has
    /// refused.
    fn on_stopping(&mut self, id: i64) {
        let message = "the peer is shutting down; the call was not processed";
        let mut error = StreamError::new(Code::Unavailable, message, Initiator::Remote);
        error.not_processed = true;
        self.store.fault(id, error, Reply::None);
        if self.peer_draining {
            return;
        }
        self.peer_draining = true;
        let at = self.now.and_then(|now| now.checked_add(STOPPING));
        if let Some(at) = at
            && self
                .store
                .timers
                .get(Timer::Drain)
                .is_none_or(|set| at < set)
        {
            self.store.timers.set(Timer::Drain, at);
        }
        let last = opened(self.highest_sent);
        self.store.events.push_back(Event::GoingAway { last });
    }

    /// Handler: the caller has cancelled a call, and does not need a reply.
    fn on_cancel(&mut self, id: i64) {
        let error = StreamError::new(
            Code::Cancelled,
            "the caller cancelled the call",
            Initiator::Remote,
        );
        self.store.fail(id, error, Reply::IfRoom);
    }
}

fn late_frame(kind: &FrameKind) -> LateFrame {
    match kind {
        FrameKind::Message { data, .. } => LateFrame::Message(data.len()),
        FrameKind::MoreData(data) if !data.is_empty() => LateFrame::More(data.len()),
        _ => LateFrame::Control,
    }
}

/// The half of a stream that a frame concerns: the sending half for a window update, the receiving
/// half for all others.
enum Half {
    Send,
    Recv,
}

fn rest_side(kind: &FrameKind) -> Half {
    match kind {
        FrameKind::WindowUpdate(_) => Half::Send,
        _ => Half::Recv,
    }
}

fn is_over(stream: &Stream, half: Half) -> bool {
    match half {
        Half::Send => stream.send.state == crate::streams::state::SendState::Done,
        // A handler's half-closed stream is not over: data after half-close is a fault.
        Half::Recv => {
            stream.recv.state == RecvState::Ended
                && !matches!(stream.recv.end, Some(RecvEnd::HalfClosed))
        }
    }
}

/// Whether a frame refuses an unseen call because the peer is shutting down, by the text of the Go
/// library. A call that was seen gets headers first.
fn says_stopping(stream: &Stream, kind: &FrameKind) -> bool {
    matches!(kind, FrameKind::Close(close)
        if stream.recv.state == RecvState::Open
            && !stream.recv.headers_seen
            && close.status.code == Code::Unavailable
            && close.status.message.contains("shutting down"))
}

fn on_stream_frame(
    stream: &mut Stream,
    rest: Context<'_>,
    kind: FrameKind,
    now: Option<Instant>,
) -> Outcome {
    match kind {
        FrameKind::Message {
            size,
            data,
            compressed,
        } => on_message(stream, rest, Begin { size, compressed }, data, now),
        FrameKind::MoreData(data) => on_more(stream, rest, data, now),
        FrameKind::HalfClose => on_half_close(stream, rest),
        FrameKind::Headers(headers) => on_headers(stream, rest, headers),
        FrameKind::Close(close) => on_close(stream, rest, close),
        FrameKind::WindowUpdate(credit) => on_window_update(stream, rest, credit),
        FrameKind::Cancel => Ok(Handled::Cancelled),
        FrameKind::Settings(_) | FrameKind::NewStream(_) | FrameKind::Unknown => Ok(Handled::Empty),
    }
}

fn check_receiving(stream: &Stream) -> Result<(), StreamFault> {
    match stream.recv.state {
        RecvState::Open => Ok(()),
        RecvState::Ended => Err(StreamFault::DataAfterHalfClose),
    }
}

fn on_message(
    stream: &mut Stream,
    mut rest: Context<'_>,
    begin: Begin,
    data: Bytes,
    now: Option<Instant>,
) -> Outcome {
    check_receiving(stream)?;
    let len = data.len();
    rest.grow_window(stream);
    rest.check_empty(stream, begin.size)?;
    stream.recv.begin(begin, data, rest.config)?;
    // A peer may leave out headers before its first message.
    stream.recv.see_headers(Metadata::new());
    rest.counts.unread_empty += usize::from(begin.size == 0);
    rest.counts.messages_received += 1;
    rest.arrived(stream, len, now);
    rest.tell_reader(stream);
    Ok(Handled::Useful)
}

fn on_more(
    stream: &mut Stream,
    mut rest: Context<'_>,
    data: Bytes,
    now: Option<Instant>,
) -> Outcome {
    check_receiving(stream)?;
    let len = data.len();
    if len == 0 {
        return Ok(Handled::Empty);
    }
    rest.grow_window(stream);
    stream.recv.more(data)?;
    rest.arrived(stream, len, now);
    rest.tell_reader(stream);
    Ok(Handled::Useful)
}

fn on_half_close(stream: &mut Stream, mut rest: Context<'_>) -> Outcome {
    if stream.recv.state == RecvState::Ended {
        return Ok(Handled::Empty);
    }
    if stream.recv.arriving() > 0 {
        return Err(StreamFault::TruncatedMessage(stream.recv.arriving()));
    }
    rest.end_receiving(stream, RecvEnd::HalfClosed);
    Ok(Handled::Useful)
}

fn on_headers(stream: &mut Stream, mut rest: Context<'_>, headers: Metadata) -> Outcome {
    if headers.size() > rest.config.v.max_metadata_size {
        return Err(StreamFault::Limit(Limit::MetadataSize));
    }
    if !stream.recv.see_headers(headers) {
        return Err(StreamFault::HeadersTwice);
    }
    rest.tell_reader(stream);
    Ok(Handled::Useful)
}

fn on_close(stream: &mut Stream, mut rest: Context<'_>, close: CloseStream) -> Outcome {
    let limit = rest.config.v.max_metadata_size;
    if close.trailers.size() > limit || close.status.size() > limit {
        let fault = StreamFault::Limit(Limit::MetadataSize);
        rest.counts.limits.count(fault.limit());
        return Ok(Handled::Failed(StreamError::fault(&fault, Side::Caller)));
    }
    if stream.recv.arriving() > 0 && close.status.code == Code::Ok {
        let fault = StreamFault::TruncatedMessage(stream.recv.arriving());
        return Ok(Handled::Failed(StreamError::fault(&fault, Side::Caller)));
    }
    rest.end_receiving(stream, RecvEnd::Closed(Box::new(close)));
    rest.end_sending(stream);
    Ok(Handled::Useful)
}

fn on_window_update(stream: &mut Stream, mut rest: Context<'_>, credit: u32) -> Outcome {
    if credit == 0 || stream.recv.window.is_none() {
        return Ok(Handled::Empty);
    }
    if !stream.send.credit.add(credit) {
        return Err(StreamFault::WindowOverflow);
    }
    rest.enqueue(stream);
    Ok(Handled::Useful)
}
