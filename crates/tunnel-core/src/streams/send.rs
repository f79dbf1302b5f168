//! The sending half of a stream: the application's data that was not sent yet.
//!
//! Invariants: data is sent in the order in which it was queued; a close never overtakes the data
//! of its stream; `queued` is the memory of the queue's segments; a run holds whole messages, and
//! if sending the first one has begun, `run_left` of its bytes are still to be sent.

use bytes::{Buf, Bytes};

use super::body::{self, Begin};
use super::flow::Credit;
use super::queue::Queue;
use super::released::Outgoing;
use super::state::SendState;
use crate::frame::framing::PREFIX_LEN;
use crate::frame::{CloseStream, FrameKindRef};
use crate::{Metadata, WriteError};

/// The cost of a queued segment beyond its bytes: its own size in memory.
const SEGMENT_OVERHEAD: usize = std::mem::size_of::<Segment>();

/// Up to this many bytes are copied when they are queued.
///
/// A small message is a slice of the buffer that it was encoded in, 8 KiB with tonic. The encoder
/// cannot reuse the buffer while the message waits. So 256 waiting messages would take 2 MiB that
/// is not counted, and every call would work in cold memory.
const COPY_UP_TO: usize = 512;

/// A segment of the queue.
#[derive(Debug)]
struct Segment {
    piece: Piece,
    data: Bytes,
}

/// The kind of a segment's data.
#[derive(Clone, Copy, Debug)]
enum Piece {
    /// The beginning of a message of this size.
    Begins(u32),
    /// The beginning of a compressed message of this size.
    BeginsCompressed(u32),
    /// More of the message that has begun.
    Continues,
    /// Whole messages that are not compressed, each behind its prefix.
    Run,
}

impl Piece {
    fn begins(begin: Begin) -> Self {
        match begin.compressed {
            false => Self::Begins(begin.size),
            true => Self::BeginsCompressed(begin.size),
        }
    }
}

/// The size and payload of the message at the front of a run.
fn first_of_run(run: &[u8]) -> (u32, &[u8]) {
    let first = run.split_first_chunk().map(|(&prefix, rest)| {
        // Only data that was scanned for prefixes is a run.
        let size = body::plain_size(prefix).unwrap_or_default();
        (size, rest.get(..size as usize).unwrap_or_default())
    });
    first.unwrap_or_default()
}

/// The beginning of a caller's stream.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) method: String,
    pub(crate) headers: Metadata,
}

/// The response headers of a handler's stream.
#[derive(Debug)]
pub(crate) enum Head {
    /// The application has not set them.
    Missing,
    /// Set, not yet written.
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
    /// The cost of each message in credit beside its payload, in bytes.
    message_cost: u8,
    queue: Queue<Segment>,
    queued: usize,
    /// The unsent bytes of the message at the front of a run, if a part of it was sent.
    run_left: u32,
    /// Whether a message was begun and none of its bytes were written.
    begun: bool,
    /// Whether the message that was begun is compressed.
    compressed: bool,
    /// How many bytes of the last message the application still has to write.
    unwritten: u32,
    /// The prefix of the next message of a body, of which `prefix_len` bytes were written.
    prefix: [u8; PREFIX_LEN],
    prefix_len: u8,
    /// Whether a writer waits for a writable event.
    pub(crate) writer_waits: bool,
    /// The number of window updates that may still arrive after the last data was sent. A correct
    /// peer sends at most one for each data frame.
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
            compressed: false,
            unwritten: 0,
            prefix: [0; PREFIX_LEN],
            prefix_len: 0,
            writer_waits: false,
            late_updates: 0,
        }
    }

    /// The queued data, in bytes with overhead.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Estimates how much of the queued data the credit allows, in bytes.
    pub(crate) fn sendable(&self) -> usize {
        self.credit.available(self.queued)
    }

    pub(crate) fn has_data(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Begins a message.
    pub(crate) fn begin(&mut self, begin: Begin) -> Result<(), WriteError> {
        self.check_open()?;
        self.check_message_whole()?;
        if begin.size == 0 {
            self.push(Piece::begins(begin), Bytes::new());
        } else {
            self.begun = true;
            self.compressed = begin.compressed;
            self.unwritten = begin.size;
        }
        Ok(())
    }

    /// Adds bytes to the message that was begun. Takes the bytes only on success.
    pub(crate) fn write(&mut self, data: &mut Bytes, out: &mut Outgoing) -> Result<(), WriteError> {
        self.check_open()?;
        if data.is_empty() {
            return Ok(());
        }
        let len = u32::try_from(data.len()).map_err(|_| WriteError::ExcessData)?;
        let size = self.unwritten;
        self.unwritten = size.checked_sub(len).ok_or(WriteError::ExcessData)?;
        let piece = match std::mem::take(&mut self.begun) {
            true => Piece::begins(Begin {
                size,
                compressed: self.compressed,
            }),
            false => Piece::Continues,
        };
        self.push_copied(piece, std::mem::take(data), out);
        Ok(())
    }

    /// Adds the next bytes of a body, split anywhere. After an error `data` holds the remaining
    /// bytes. `compressed` allows compressed messages.
    pub(crate) fn body(
        &mut self,
        data: &mut Bytes,
        compressed: bool,
        out: &mut Outgoing,
    ) -> Result<(), WriteError> {
        self.check_open()?;
        while !data.is_empty() {
            if self.unwritten > 0 {
                let part = data.len().min(self.unwritten as usize);
                self.write(&mut split_off(data, part), out)?;
            } else if self.prefix_len > 0 || data.len() < PREFIX_LEN {
                self.body_prefix(data, compressed, out)?;
            } else {
                match body::whole_messages(data) {
                    0 => self.body_prefix(data, compressed, out)?,
                    run => self.push_copied(Piece::Run, split_off(data, run), out),
                }
            }
        }
        Ok(())
    }

    /// Takes the bytes of a prefix, and begins its message when the prefix is complete.
    fn body_prefix(
        &mut self,
        data: &mut Bytes,
        compressed: bool,
        out: &mut Outgoing,
    ) -> Result<(), WriteError> {
        let have = usize::from(self.prefix_len);
        let take = data.len().min(PREFIX_LEN - have);
        let part = split_off(data, take);
        self.prefix[have..have + take].copy_from_slice(&part);
        out.put(part);
        self.prefix_len += take as u8;
        if usize::from(self.prefix_len) < PREFIX_LEN {
            return Ok(());
        }
        let begin = Begin::of(self.prefix)?;
        if begin.compressed && !compressed {
            return Err(WriteError::Compressed);
        }
        self.prefix_len = 0;
        self.begin(begin)
    }

    /// Whether no message is half written.
    pub(crate) fn is_whole(&self) -> bool {
        self.unwritten == 0 && self.prefix_len == 0
    }

    /// Marks the half as finished by the application.
    pub(crate) fn finish(&mut self) -> Result<(), WriteError> {
        self.check_open()?;
        self.check_message_whole()?;
        self.state = SendState::Finishing;
        Ok(())
    }

    /// Queues data, if it is not empty. Small data is copied.
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

    /// The number of the `wanted` bytes that may be sent now; `None` if nothing may be sent. An
    /// empty message needs only the credit that each message costs.
    fn affordable(&self, begins: bool, wanted: usize) -> Option<usize> {
        let cost = if begins {
            self.message_cost as usize
        } else {
            0
        };
        let left = self.credit.available(cost + wanted).checked_sub(cost)?;
        (left > 0 || wanted == 0).then_some(left)
    }

    /// The size of the next piece if credit were unlimited, in bytes.
    pub(crate) fn next_len(&self, chunk: usize) -> Option<usize> {
        self.front().map(|(_, data)| data.len().min(chunk))
    }

    /// The size of the message that begins at the front of the queue, if one does, and the queued
    /// bytes of it.
    fn front(&self) -> Option<(Option<u32>, &[u8])> {
        let front = self.queue.front()?;
        Some(match front.piece {
            Piece::Begins(size) | Piece::BeginsCompressed(size) => (Some(size), &front.data),
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

    /// The next piece of data to send, at most `chunk` bytes and never more than the window. `None`
    /// without data or without credit.
    pub(crate) fn next_chunk(&self, chunk: usize) -> Option<FrameKindRef<'_>> {
        let (begins, data) = self.front()?;
        let len = self.affordable(begins.is_some(), data.len().min(chunk))?;
        let data = &data[..len];
        Some(match begins {
            Some(size) => FrameKindRef::Message {
                size,
                data,
                compressed: self
                    .queue
                    .front()
                    .is_some_and(|front| matches!(front.piece, Piece::BeginsCompressed(_))),
            },
            None => FrameKindRef::MoreData(data),
        })
    }

    /// Removes the first `len` bytes, which were written as the last
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
            Piece::Begins(_) | Piece::BeginsCompressed(_) | Piece::Continues => {
                front.piece = Piece::Continues;
                len
            }
        };
        self.queued -= used;
        // The rest keeps the whole buffer alive, although `queued` counts only the rest.
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

    /// Drops the queue, because nothing more will be sent. Returns the size of the dropped data.
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

/// Splits off the first `len` bytes. Takes the whole buffer without a new reference if it has no
/// more.
fn split_off(data: &mut Bytes, len: usize) -> Bytes {
    if len == data.len() {
        std::mem::take(data)
    } else {
        data.split_to(len)
    }
}
