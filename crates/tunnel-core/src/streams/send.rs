//! The half of a stream that sends: what the application gave and the transport has not
//! taken yet.
//!
//! Invariants: everything leaves in the order it was given; a close never overtakes the data
//! of its own stream; `queued` is what the queue's segments cost.

use std::collections::VecDeque;

use bytes::Bytes;

use super::flow::Credit;
use super::state::SendState;
use crate::frame::{CloseStream, FrameKindRef};
use crate::{Metadata, WriteError};

/// What a queued segment counts beyond its bytes: its own size in memory.
const SEGMENT_OVERHEAD: usize = std::mem::size_of::<Segment>();

/// A piece of a message that waits to be sent.
#[derive(Debug)]
struct Segment {
    /// The size of the message that begins here, if one does.
    begins: Option<u32>,
    data: Bytes,
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
    queue: VecDeque<Segment>,
    queued: usize,
    /// A message whose size was given but none of whose bytes were.
    begun: Option<u32>,
    /// How many bytes of the last message the application has yet to give.
    unwritten: u32,
    /// Whether a writer was told to wait.
    pub(crate) writer_waits: bool,
    /// How many window updates may still come when nothing more is to be sent: a careful peer
    /// sends at most one for each data frame.
    pub(crate) late_updates: u64,
}

impl SendHalf {
    pub(crate) fn new(credit: Credit, opening: Option<Box<Opening>>) -> Self {
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
            queue: VecDeque::new(),
            queued: 0,
            begun: None,
            unwritten: 0,
            writer_waits: false,
            late_updates: 0,
        }
    }

    /// What lies queued, in bytes with overhead.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    pub(crate) fn has_data(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Begins a message of a size.
    pub(crate) fn begin(&mut self, size: u32) -> Result<(), WriteError> {
        self.check_open()?;
        self.check_message_whole()?;
        if size == 0 {
            self.push(Some(0), Bytes::new());
        } else {
            self.begun = Some(size);
            self.unwritten = size;
        }
        Ok(())
    }

    /// Adds bytes to the message begun.
    pub(crate) fn write(&mut self, data: Bytes) -> Result<(), WriteError> {
        self.check_open()?;
        if data.is_empty() {
            return Ok(());
        }
        let len = u32::try_from(data.len()).map_err(|_| WriteError::ExcessData)?;
        self.unwritten = self
            .unwritten
            .checked_sub(len)
            .ok_or(WriteError::ExcessData)?;
        let begins = self.begun.take();
        self.push(begins, data);
        Ok(())
    }

    /// Marks the half as finished by its application.
    pub(crate) fn finish(&mut self) -> Result<(), WriteError> {
        self.check_open()?;
        self.check_message_whole()?;
        self.state = SendState::Finishing;
        Ok(())
    }

    fn push(&mut self, begins: Option<u32>, data: Bytes) {
        self.queued += data.len() + SEGMENT_OVERHEAD;
        self.queue.push_back(Segment { begins, data });
    }

    fn check_open(&self) -> Result<(), WriteError> {
        match self.state {
            SendState::Open => Ok(()),
            SendState::Finishing => Err(WriteError::Finished),
            SendState::Done => Err(WriteError::Gone),
        }
    }

    fn check_message_whole(&self) -> Result<(), WriteError> {
        match self.unwritten {
            0 => Ok(()),
            left => Err(WriteError::MessageIncomplete(left)),
        }
    }

    /// Whether the stream's beginning (its `new_stream`, or its response headers) was written.
    pub(crate) fn has_begun(&self) -> bool {
        self.opening.is_none() && matches!(self.head, Head::Written)
    }

    /// Whether the front of the queue may be sent now. An empty message needs no credit.
    pub(crate) fn can_send_data(&self) -> bool {
        self.queue
            .front()
            .is_some_and(|s| s.data.is_empty() || self.credit.available(1) > 0)
    }

    /// The next piece of data to send, at most `chunk` bytes and never more than the window.
    pub(crate) fn next_chunk(&self, chunk: usize) -> Option<FrameKindRef<'_>> {
        let front = self.queue.front()?;
        let len = self.credit.available(front.data.len().min(chunk));
        if len == 0 && !front.data.is_empty() {
            return None;
        }
        let data = &front.data[..len];
        Some(match front.begins {
            Some(size) => FrameKindRef::Message { size, data },
            None => FrameKindRef::MoreData(data),
        })
    }

    /// Forgets the first `len` bytes, which were written as the last
    /// [`next_chunk`](Self::next_chunk).
    pub(crate) fn advance(&mut self, len: usize) {
        self.credit.spend(len);
        self.late_updates += 1;
        let Some(front) = self.queue.front_mut() else {
            debug_assert!(false, "only what is queued is sent");
            return;
        };
        front.begins = None;
        if len < front.data.len() {
            // Splitting keeps the rest's memory alive, which the queue counts anyway.
            front.data = front.data.slice(len..);
            self.queued -= len;
        } else {
            self.queued -= len + SEGMENT_OVERHEAD;
            self.queue.pop_front();
            if self.queue.is_empty() {
                debug_assert_eq!(self.queued, 0, "an empty queue costs nothing");
                self.shrink();
            }
        }
    }

    /// An idle stream keeps no queue memory beyond a few segments.
    fn shrink(&mut self) {
        const KEEP: usize = 8;
        if self.queue.capacity() > KEEP {
            self.queue.shrink_to(KEEP);
        }
    }

    /// Drops everything queued: nothing more will be sent. Returns what it cost.
    pub(crate) fn abort(&mut self) -> usize {
        self.state = SendState::Done;
        self.queue = VecDeque::new();
        self.opening = None;
        self.closing = None;
        self.begun = None;
        self.unwritten = 0;
        std::mem::take(&mut self.queued)
    }
}
