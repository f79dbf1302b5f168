//! The receiving half of a stream: data that has arrived and was not read.
//!
//! This file takes what arrives; `take` hands it to the reader. A declared size allocates nothing.
//! Small payloads are copied into a buffer of the stream, so that a few unread bytes do not keep a
//! transport buffer alive.
//!
//! Invariants: `unread` is the sum of the payload held; every message has exactly its declared size,
//! or the stream fails.

mod take;

use bytes::{Bytes, BytesMut};

use super::body::Begin;
use super::flow::RecvWindow;
use super::queue::Queue;
use super::released::Outgoing;
use super::sizes::Sizes;
use super::state::RecvState;
use crate::frame::CloseStream;
use crate::frame::framing::SMALL_FRAME;
use crate::{Config, Metadata, StreamError, StreamFault};

pub use take::Chunk;
pub(super) use take::RELEASE_PART;
pub(crate) use take::Taken;

/// Payloads below this many bytes are copied together instead of being kept as slices, and pieces
/// below it are copied together again when they are handed on as a body. One allocation and one
/// reference for each message cost more than copying 4 KiB does.
///
/// A payload is no larger than its frame, so this also copies the small frames that the deframer
/// never copies.
const COPY_BELOW: usize = SMALL_FRAME;

/// The size up to which a buffer of copied payloads grows before the next one is begun. Up to a
/// quarter of it the buffer grows with its content, so that few unread bytes take little memory.
const BLOCK: usize = 16 << 10;

/// How a receiving half ended.
#[derive(Debug)]
pub(crate) enum RecvEnd {
    HalfClosed,
    Closed(Box<CloseStream>),
    Failed(Box<StreamError>),
}

/// The message at the front, of which some may have been read.
#[derive(Clone, Copy, Debug)]
struct Front {
    size: u32,
    compressed: bool,
    read: u32,
    begun: bool,
}

/// The receiving half of a stream.
#[derive(Debug)]
pub(crate) struct RecvHalf {
    pub(crate) state: RecvState,
    /// Caller: response headers that were not taken yet.
    pub(crate) headers: Option<Metadata>,
    pub(crate) headers_seen: bool,
    pub(crate) end: Option<RecvEnd>,
    /// Revision one; `None` in revision zero.
    pub(crate) window: Option<RecvWindow>,
    slices: Queue<Bytes>,
    small: BytesMut,
    unread: usize,
    sizes: Sizes,
    front: Option<Front>,
    /// How many bytes the message now arriving still lacks.
    arriving: u32,
    /// Unread bytes of a held-back message for which credit was returned already. They count
    /// against the tunnel's spare memory.
    pub(crate) held: usize,
    /// The part of [`overhead`](Self::overhead) that the tunnel's counters include.
    pub(crate) counted_overhead: u32,
    /// Whether a readable event was emitted and not used up by a read.
    pub(crate) reader_told: bool,
    /// Whether the reader has read everything and waits.
    pub(crate) reader_waits: bool,
    /// The cost of each message in the window beside its payload, in bytes.
    pub(crate) message_cost: u8,
    /// Whether compressed messages are accepted.
    carries_compressed: bool,
}

impl RecvHalf {
    pub(crate) fn new(
        window: Option<RecvWindow>,
        message_cost: u8,
        carries_compressed: bool,
    ) -> Self {
        Self {
            state: RecvState::Open,
            headers: None,
            headers_seen: false,
            end: None,
            window,
            slices: Queue::default(),
            small: BytesMut::new(),
            unread: 0,
            sizes: Sizes::default(),
            front: None,
            arriving: 0,
            held: 0,
            counted_overhead: 0,
            reader_told: false,
            reader_waits: false,
            message_cost,
            carries_compressed,
        }
    }

    /// Unread payload, in bytes.
    pub(crate) fn unread(&self) -> usize {
        self.unread
    }

    /// Memory beyond the unread payload, in bytes: the message boundaries, and the room that a
    /// reader reserves for the whole of a message when it begins.
    pub(crate) fn overhead(&self) -> u32 {
        let reserved = match self.front {
            Some(front) if front.begun => front.size,
            _ => 0,
        };
        let sizes = u32::try_from(self.sizes.memory()).unwrap_or(u32::MAX);
        reserved.saturating_add(sizes)
    }

    /// The number of messages with unread data.
    pub(crate) fn unread_messages(&self) -> usize {
        self.sizes.count + usize::from(self.front.is_some())
    }

    /// All unread data. Of the messages, only those count that have arrived completely.
    pub(crate) fn unread_all(&self) -> Taken {
        // The message at the front may be incomplete. It is in no other list.
        let unbegun = |front: &Front| !front.begun;
        let empty = |front: &Front| front.size == 0;
        Taken {
            bytes: self.unread,
            begun: self.sizes.count + usize::from(self.front.as_ref().is_some_and(unbegun)),
            ended: self.unread_messages() - usize::from(self.arriving > 0),
            empty: self.sizes.empty + usize::from(self.front.as_ref().is_some_and(empty)),
        }
    }

    /// How many bytes the message now arriving still lacks.
    pub(crate) fn arriving(&self) -> u32 {
        self.arriving
    }

    /// Notes response headers; `false` if they were there before.
    pub(crate) fn see_headers(&mut self, headers: Metadata) -> bool {
        let first = !self.headers_seen;
        if first {
            self.headers_seen = true;
            self.headers = Some(headers);
        }
        first
    }

    /// Takes the first piece of a message.
    pub(crate) fn begin(
        &mut self,
        begin: Begin,
        data: Bytes,
        config: &Config,
    ) -> Result<(), StreamFault> {
        let Begin { size, .. } = begin;
        if self.arriving > 0 {
            return Err(StreamFault::MessageInsideMessage(self.arriving));
        }
        let limit = config.v.max_message_size;
        if size as usize > limit {
            return Err(StreamFault::MessageTooLarge { size, limit });
        }
        if begin.compressed && !self.carries_compressed {
            return Err(StreamFault::CompressedMessage);
        }
        if data.len() > size as usize {
            return Err(StreamFault::ExcessData);
        }
        if let Some(window) = &mut self.window
            && !window.receive(self.message_cost.into())
        {
            return Err(StreamFault::WindowExceeded);
        }
        self.sizes.push(begin);
        self.arriving = size;
        self.append(data)
    }

    /// Takes a further piece of a message.
    pub(crate) fn more(&mut self, data: Bytes) -> Result<(), StreamFault> {
        if data.len() > self.arriving as usize {
            return Err(StreamFault::ExcessData);
        }
        self.append(data)
    }

    fn append(&mut self, data: Bytes) -> Result<(), StreamFault> {
        if let Some(window) = &mut self.window
            && !window.receive(data.len())
        {
            return Err(StreamFault::WindowExceeded);
        }
        // Cannot truncate: `data` is no longer than `arriving`.
        self.arriving -= data.len() as u32;
        self.unread += data.len();
        if data.is_empty() {
        } else if data.len() < COPY_BELOW {
            self.append_small(&data);
        } else {
            self.flush_small();
            self.slices.push_back(data);
        }
        Ok(())
    }

    fn append_small(&mut self, data: &[u8]) {
        let room = self.small.capacity() - self.small.len();
        if data.len() > room {
            // The first payload gets a buffer of its exact size: most streams have no second
            // payload, and a full buffer can be handed on without another allocation.
            match self.small.len() {
                0 => self.small.reserve(data.len()),
                few if few < BLOCK / 4 => self.small.reserve(data.len().max(3 * few)),
                _ => {
                    self.flush_small();
                    self.small.reserve(BLOCK);
                }
            }
        }
        self.small.extend_from_slice(data);
    }

    /// The buffer is given away whole. A part that is kept would keep all of it alive.
    fn flush_small(&mut self) {
        if !self.small.is_empty() {
            let gathered = std::mem::take(&mut self.small);
            self.slices.push_back(gathered.freeze());
        }
    }

    /// Ends the half with an error, which is read after the unread data.
    pub(crate) fn fail(&mut self, error: StreamError) {
        self.state = RecvState::Ended;
        self.end = Some(RecvEnd::Failed(Box::new(error)));
    }

    /// Drops the unread data.
    pub(crate) fn clear(&mut self, out: &mut Outgoing) {
        out.put_all(std::mem::take(&mut self.slices));
        self.small = BytesMut::new();
        self.sizes = Sizes::default();
        self.front = None;
        self.unread = 0;
        self.arriving = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(window: u32) -> RecvHalf {
        RecvHalf::new(Some(RecvWindow::new(window)), 0, false)
    }

    #[test]
    fn small_pieces_are_gathered_and_large_ones_stay_slices() {
        let config = Config::default();
        let mut r = half(65_536);
        let large = Bytes::from(vec![7; COPY_BELOW]);
        let at = large.as_ptr();
        r.begin(Begin::plain(10), Bytes::from_static(b"01234"), &config)
            .expect("fits");
        r.more(Bytes::from_static(b"56789")).expect("fits");
        r.begin(Begin::plain(COPY_BELOW as u32), large, &config)
            .expect("fits");
        let first = r.next_chunk(65_536).expect("there");
        assert_eq!(&first.data[..], b"0123456789");
        assert_eq!((first.begins, first.ends), (Some(10), true));
        let second = r.next_chunk(65_536).expect("there");
        assert_eq!(second.data.as_ptr(), at, "not copied");
        assert_eq!(r.next_chunk(65_536), None);
        assert_eq!((r.unread(), r.unread_messages()), (0, 0));
    }

    #[test]
    fn small_pieces_have_no_more_room_than_the_memory_formula_says() {
        let config = Config::default();
        for first in [1, 7, 100, 2048, 4095] {
            for then in [1, 100, 1000, 4095] {
                let mut r = half(65_536);
                r.begin(Begin::plain(60_000), vec![1; first].into(), &config)
                    .expect("fits");
                while r.unread() + then <= 60_000 {
                    r.more(vec![1; then].into()).expect("fits");
                    let room = r.small.capacity() - r.small.len();
                    // An allocation has at least eight bytes.
                    let most = if r.unread() <= 4096 {
                        (3 * r.unread()).max(8)
                    } else {
                        BLOCK
                    };
                    assert!(room <= most, "{first}, {then}, {}: {room}", r.unread());
                    assert!(room <= 4 * r.unread(), "a large piece may end it here");
                }
            }
        }
    }
}
