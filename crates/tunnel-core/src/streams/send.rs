//! The sending half of a stream: data from the application that was not sent yet.
//!
//! Invariants: data is sent in the order in which it was queued; a close never overtakes the data of
//! its stream; `queued` is the memory of the queue's segments; a run holds whole messages, and if
//! the first one was begun, `run_left` of its bytes are still to be sent.

use bytes::{Buf, Bytes};

use super::body;
use super::flow::Credit;
use super::queue::Queue;
use super::released::Outgoing;
use super::state::SendState;
use crate::frame::framing::PREFIX_LEN;
use crate::frame::{CloseStream, FrameKindRef};
use crate::{Metadata, WriteError};

/// What a queued segment counts beyond its bytes: its own size in memory.
const SEGMENT_OVERHEAD: usize = std::mem::size_of::<Segment>();

/// Up to this many bytes are copied when they are queued.
///
/// A small message is a slice of the buffer it was encoded in, 8 KiB with tonic, which nobody can
/// use again while the message waits: 256 of them waiting took 2 MiB that no accounting saw, and
/// had every call work in cold memory.
const COPY_UP_TO: usize = 512;

/// What waits to be sent.
#[derive(Debug)]
struct Segment {
    piece: Piece,
    data: Bytes,
}

/// What a segment's data is.
#[derive(Clone, Copy, Debug)]
enum Piece {
    /// The beginning of a message of this size.
    Begins(u32),
    /// More of the message before.
    Continues,
    /// Whole messages, each behind its prefix.
    Run,
}

/// The size and payload of the message at the front of a run.
fn first_of_run(run: &[u8]) -> (u32, &[u8]) {
    let first = run.split_first_chunk().map(|(&prefix, rest)| {
        // Only what has been looked through is a run.
        let size = body::size_of(prefix).unwrap_or_default();
        (size, rest.get(..size as usize).unwrap_or_default())
    });
    first.unwrap_or_default()
}

/// What a caller's stream opens with.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) method: String,
    pub(crate) headers: Metadata,
}

/// The response headers of a handler's stream.
#[derive(Debug)]
pub(crate) enum Head {
    /// The application has not given them.
    Missing,
    /// Given, not yet written.
    Pending(Metadata),
    /// Written; or this side sends none.
    Written,
}

/// The sending half of a stream.
#[derive(Debug)]
pub(crate) struct SendHalf {
    pub(crate) state: SendState,
    /// Caller: `new_stream`, until it is written.
    pub(crate) opening: Option<Box<Opening>>,
    /// Handler: the response headers.
    pub(crate) head: Head,
    /// Handler: the end, until it is written.
    pub(crate) closing: Option<Box<CloseStream>>,
    pub(crate) credit: Credit,
    /// What each message costs of the credit beside its payload.
    message_cost: u8,
    queue: Queue<Segment>,
    queued: usize,
    /// How much of the message at the front of a run is left, when some of it was sent.
    run_left: u32,
    /// Whether the size of a message was given but none of its bytes were.
    begun: bool,
    /// How many bytes of the last message the application has yet to give.
    unwritten: u32,
    /// The prefix of the next message of a body, of which `prefix_len` bytes were given.
    prefix: [u8; PREFIX_LEN],
    prefix_len: u8,
    /// Whether a writer was told to wait.
    pub(crate) writer_waits: bool,
    /// How many window updates may still come when nothing more is to be sent: a careful peer
    /// sends at most one for each data frame.
    pub(crate) late_updates: u32,
}

impl SendHalf {
    pub(crate) fn new(credit: Credit, opening: Option<Box<Opening>>, message_cost: u8) -> Self {
        let head = match opening {
            Some(_) => Head::Written,
            None => Head::Missing,
        };
        Self {
            state: SendState::Open,
            opening,
            head,
            closing: None,
            credit,
            message_cost,
            queue: Queue::default(),
            queued: 0,
            run_left: 0,
            begun: false,
            unwritten: 0,
            prefix: [0; PREFIX_LEN],
            prefix_len: 0,
            writer_waits: false,
            late_updates: 0,
        }
    }

    /// What lies queued, in bytes with overhead.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// How much of it there is credit for, about.
    pub(crate) fn sendable(&self) -> usize {
        self.credit.available(self.queued)
    }

    pub(crate) fn has_data(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Begins a message of a size.
    pub(crate) fn begin(&mut self, size: u32) -> Result<(), WriteError> {
        self.check_open()?;
        self.check_message_whole()?;
        if size == 0 {
            self.push(Piece::Begins(0), Bytes::new());
        } else {
            self.begun = true;
            self.unwritten = size;
        }
        Ok(())
    }

    /// Adds bytes to the message begun. Takes them only if it succeeds.
    pub(crate) fn write(&mut self, data: &mut Bytes, out: &mut Outgoing) -> Result<(), WriteError> {
        self.check_open()?;
        if data.is_empty() {
            return Ok(());
        }
        let len = u32::try_from(data.len()).map_err(|_| WriteError::ExcessData)?;
        let size = self.unwritten;
        self.unwritten = size.checked_sub(len).ok_or(WriteError::ExcessData)?;
        let piece = match std::mem::take(&mut self.begun) {
            true => Piece::Begins(size),
            false => Piece::Continues,
        };
        self.push_copied(piece, std::mem::take(data), out);
        Ok(())
    }

    /// Adds the next bytes of a body, cut anywhere. Leaves what comes behind an error.
    pub(crate) fn body(&mut self, data: &mut Bytes, out: &mut Outgoing) -> Result<(), WriteError> {
        self.check_open()?;
        while !data.is_empty() {
            if self.unwritten > 0 {
                let part = data.len().min(self.unwritten as usize);
                self.write(&mut split_off(data, part), out)?;
            } else if self.prefix_len > 0 || data.len() < PREFIX_LEN {
                self.body_prefix(data, out)?;
            } else {
                match body::whole_messages(data) {
                    0 => self.body_prefix(data, out)?,
                    run => self.push_copied(Piece::Run, split_off(data, run), out),
                }
            }
        }
        Ok(())
    }

    /// Takes what there is of a prefix, and begins its message when it is whole.
    fn body_prefix(&mut self, data: &mut Bytes, out: &mut Outgoing) -> Result<(), WriteError> {
        let have = usize::from(self.prefix_len);
        let take = data.len().min(PREFIX_LEN - have);
        let part = split_off(data, take);
        self.prefix[have..have + take].copy_from_slice(&part);
        out.put(part);
        self.prefix_len += take as u8;
        if usize::from(self.prefix_len) < PREFIX_LEN {
            return Ok(());
        }
        let size = body::size_of(self.prefix)?;
        self.prefix_len = 0;
        self.begin(size)
    }

    /// Whether no message is half given.
    pub(crate) fn is_whole(&self) -> bool {
        self.unwritten == 0 && self.prefix_len == 0
    }

    /// Marks the half as finished by its application.
    pub(crate) fn finish(&mut self) -> Result<(), WriteError> {
        self.check_open()?;
        self.check_message_whole()?;
        self.state = SendState::Finishing;
        Ok(())
    }

    /// Queues data that is not empty; a copy of it where it is small.
    fn push_copied(&mut self, piece: Piece, mut data: Bytes, out: &mut Outgoing) {
        if data.len() <= COPY_UP_TO {
            let copy = Bytes::copy_from_slice(&data);
            out.put(std::mem::replace(&mut data, copy));
        }
        self.push(piece, data);
    }

    fn push(&mut self, piece: Piece, data: Bytes) {
        self.queued += data.len() + SEGMENT_OVERHEAD;
        self.queue.push_back(Segment { piece, data });
    }

    fn check_open(&self) -> Result<(), WriteError> {
        match self.state {
            SendState::Open => Ok(()),
            SendState::Finishing => Err(WriteError::Finished),
            SendState::Done => Err(WriteError::Gone),
        }
    }

    fn check_message_whole(&self) -> Result<(), WriteError> {
        match (self.unwritten, self.prefix_len) {
            (0, 0) => Ok(()),
            (0, have) => Err(WriteError::MessageIncomplete(
                PREFIX_LEN as u32 - u32::from(have),
            )),
            (left, _) => Err(WriteError::MessageIncomplete(left)),
        }
    }

    /// Whether the stream's beginning (its `new_stream`, or its response headers) was written.
    pub(crate) fn has_begun(&self) -> bool {
        self.opening.is_none() && matches!(self.head, Head::Written)
    }

    /// Whether the front of the queue may be sent now.
    pub(crate) fn can_send_data(&self) -> bool {
        self.front().is_some_and(|(begins, data)| {
            self.affordable(begins.is_some(), data.len().min(1))
                .is_some()
        })
    }

    /// How many of `wanted` bytes may be sent now; `None` if that is nothing. An empty message needs
    /// no credit but what messages cost.
    fn affordable(&self, begins: bool, wanted: usize) -> Option<usize> {
        let cost = if begins {
            self.message_cost as usize
        } else {
            0
        };
        let left = self.credit.available(cost + wanted).checked_sub(cost)?;
        (left > 0 || wanted == 0).then_some(left)
    }

    /// How many bytes the next piece would be if there were credit for it.
    pub(crate) fn next_len(&self, chunk: usize) -> Option<usize> {
        self.front().map(|(_, data)| data.len().min(chunk))
    }

    /// The size of the message that begins at the front of the queue, if one does, and what is
    /// there of it.
    fn front(&self) -> Option<(Option<u32>, &[u8])> {
        let front = self.queue.front()?;
        Some(match front.piece {
            Piece::Begins(size) => (Some(size), &front.data),
            Piece::Continues => (None, &front.data),
            Piece::Run if self.run_left > 0 => (
                None,
                front.data.get(..self.run_left as usize).unwrap_or_default(),
            ),
            Piece::Run => {
                let (size, data) = first_of_run(&front.data);
                (Some(size), data)
            }
        })
    }

    /// The next piece of data to send, at most `chunk` bytes and never more than the window.
    /// `None` if there is none, or no credit for it.
    pub(crate) fn next_chunk(&self, chunk: usize) -> Option<FrameKindRef<'_>> {
        let (begins, data) = self.front()?;
        let len = self.affordable(begins.is_some(), data.len().min(chunk))?;
        let data = &data[..len];
        Some(match begins {
            Some(size) => FrameKindRef::Message { size, data },
            None => FrameKindRef::MoreData(data),
        })
    }

    /// Forgets the first `len` bytes, which were written as the last
    /// [`next_chunk`](Self::next_chunk).
    pub(crate) fn advance(&mut self, len: usize, out: &mut Outgoing) {
        let begins = self.front().is_some_and(|(begins, _)| begins.is_some());
        let cost = if begins {
            self.message_cost as usize
        } else {
            0
        };
        self.credit.spend(len + cost);
        self.late_updates = self.late_updates.saturating_add(1);
        let Some(front) = self.queue.front_mut() else {
            debug_assert!(false, "only what is queued is sent");
            return;
        };
        let used = match front.piece {
            Piece::Run if self.run_left > 0 => {
                self.run_left -= len as u32;
                len
            }
            Piece::Run => {
                let (size, _) = first_of_run(&front.data);
                self.run_left = size - len as u32;
                PREFIX_LEN + len
            }
            Piece::Begins(_) | Piece::Continues => {
                front.piece = Piece::Continues;
                len
            }
        };
        self.queued -= used;
        // The rest keeps all of the memory alive, which the queue counts anyway.
        front.data.advance(used);
        if front.data.is_empty() {
            self.queued -= SEGMENT_OVERHEAD;
            if let Some(sent) = self.queue.pop_front() {
                out.put(sent.data);
            }
            debug_assert!(
                self.queued == 0 || !self.queue.is_empty(),
                "an empty queue costs nothing"
            );
        }
    }

    /// Drops everything queued: nothing more will be sent. Returns what it cost.
    pub(crate) fn abort(&mut self, out: &mut Outgoing) -> usize {
        self.state = SendState::Done;
        while let Some(unsent) = self.queue.pop_front() {
            out.put(unsent.data);
        }
        self.queue = Queue::default();
        self.run_left = 0;
        self.prefix_len = 0;
        self.opening = None;
        self.closing = None;
        self.begun = false;
        self.unwritten = 0;
        std::mem::take(&mut self.queued)
    }
}

/// The first `len` bytes, without a new reference where they are all.
fn split_off(data: &mut Bytes, len: usize) -> Bytes {
    if len == data.len() {
        std::mem::take(data)
    } else {
        data.split_to(len)
    }
}
