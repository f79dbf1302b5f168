//! What one end's application knows of one call, and what it may expect.

use std::collections::VecDeque;

use tunnel_core::{Chunk, Code, FrameKind, Read, Side, StreamId, WriteError};

use super::check_bytes;

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) id: StreamId,
    /// Whether the call has ended for its application: it read the end, gave the call up, or (at a
    /// handler) got the event.
    pub(crate) over: bool,
    /// The sizes of messages that the peer began and the application has not begun to read, and
    /// whether they are compressed.
    pub(crate) sizes: VecDeque<(u32, bool)>,
    /// Payload that the peer sent, in bytes.
    pub(crate) fed: usize,
    /// Payload that was read, in bytes.
    pub(crate) read: usize,
    /// Messages of which something was read.
    pub(crate) begun: usize,
    /// The message being read: its size and flag, and how much of it was read.
    partial: Option<((u32, bool), usize)>,
    /// Whether a `Readable` event came since the last read found nothing.
    told: bool,
    pub(crate) half_closed: bool,
    /// The response headers were sent.
    headers: bool,
    /// Payload that was written, in bytes.
    pub(crate) given: usize,
    /// Messages that were begun.
    pub(crate) messages: usize,
    /// What is to be written of the message that was begun, in bytes.
    pub(crate) unwritten: usize,
    /// The sending half was finished cleanly. At a handler: with this code.
    pub(crate) finished: Option<Code>,
    /// The handler's code of a reset.
    pub(crate) reset: Option<Code>,
    /// Whether a `Writable` event is to come.
    pub(crate) waits: bool,
}

impl Call {
    pub(crate) fn new(id: StreamId) -> Self {
        Self {
            id,
            over: false,
            sizes: VecDeque::new(),
            fed: 0,
            read: 0,
            begun: 0,
            partial: None,
            told: false,
            half_closed: false,
            headers: false,
            given: 0,
            messages: 0,
            unwritten: 0,
            finished: None,
            reset: None,
            waits: false,
        }
    }

    pub(crate) fn end(&mut self) {
        self.over = true;
        self.waits = false;
    }

    /// The peer sends a frame on the stream, whether it is accepted or not.
    pub(crate) fn is_fed(&mut self, kind: &FrameKind) {
        if let FrameKind::Message {
            size, compressed, ..
        } = kind
        {
            self.sizes.push_back((*size, *compressed));
        }
        if let FrameKind::Message { data, .. } | FrameKind::MoreData(data) = kind {
            self.fed += data.len();
        }
    }

    /// A `Readable` event came.
    pub(crate) fn readable(&mut self) {
        assert!(!self.told, "told twice, with nothing read in between");
        self.told = true;
    }

    /// Whether an application that relies on events would read now.
    pub(crate) fn is_readable(&self) -> bool {
        self.told && !self.over && !self.half_closed
    }

    /// Whether the peer's half has been read to its end.
    pub(crate) fn has_read(&self, messages: usize, bytes: usize) -> bool {
        self.partial.is_none() && self.begun == messages && self.read == bytes
    }

    /// Checks the result of beginning a message of `size` bytes; whether it has begun.
    pub(crate) fn begins(&mut self, size: usize, done: Result<(), WriteError>) -> bool {
        match done {
            Ok(()) => {
                assert!(!self.over && self.finished.is_none() && self.unwritten == 0);
                self.messages += 1;
                self.unwritten = size;
                true
            }
            Err(error) => {
                self.is_refused(&error);
                false
            }
        }
    }

    /// Checks the result of writing `len` bytes.
    pub(crate) fn writes(&mut self, len: usize, done: Result<(), WriteError>) {
        match done {
            Ok(()) => {
                assert!(!self.over && self.finished.is_none());
                assert!(len <= self.unwritten, "no more than was begun");
                self.given += len;
                self.unwritten -= len;
            }
            Err(WriteError::ExcessData) => assert!(len > self.unwritten),
            Err(error) => self.is_refused(&error),
        }
    }

    /// Checks the result of finishing the sending half; `code` is a handler's.
    pub(crate) fn finishes(&mut self, code: Code, done: Result<(), WriteError>) {
        match done {
            Ok(()) => {
                assert!(!self.over && self.finished.is_none() && self.unwritten == 0);
                self.finished = Some(code);
            }
            Err(error) => self.is_refused(&error),
        }
    }

    /// Checks the result of sending response headers.
    pub(crate) fn sends_headers(&mut self, fits: bool, done: Result<(), WriteError>) {
        match done {
            Ok(()) => {
                assert!(
                    fits && !self.headers && self.messages == 0,
                    "headers go once"
                );
                self.headers = true;
            }
            Err(WriteError::HeadersSent) => assert!(self.headers || self.messages > 0),
            Err(WriteError::MetadataSize { .. }) => assert!(!fits),
            Err(error) => self.is_refused(&error),
        }
    }

    /// Checks why the sending half refused something.
    fn is_refused(&self, error: &WriteError) {
        match error {
            // It may end before its application gets to know.
            WriteError::Gone => {}
            WriteError::Finished => assert!(self.finished.is_some()),
            WriteError::MessageIncomplete(left) => {
                assert!(*left > 0);
                assert_eq!(*left as usize, self.unwritten);
            }
            other => panic!("{other:?}"),
        }
    }

    /// Checks what was read; whether there may be more.
    pub(crate) fn takes(&mut self, from: Side, read: &Read) -> bool {
        if self.over {
            assert_eq!(*read, Read::Gone);
            return false;
        }
        match read {
            Read::Pending => {
                self.told = false;
                assert!(!self.half_closed, "the end stays the end");
                return false;
            }
            Read::Data(chunk) => {
                assert!(!self.half_closed, "no data after the end");
                // A window that grew meanwhile can bring more of an unfinished message than the
                // event was about. Another event comes for the rest.
                assert!(self.told || !chunk.ends, "a whole message without an event");
                self.takes_chunk(from, chunk);
                return true;
            }
            Read::HalfClosed => {
                assert_eq!(from, Side::Caller);
                assert_eq!(self.partial, None, "messages are whole before the end");
                assert_eq!(self.sizes.len(), 0, "all messages come before the end");
                assert!(self.told);
                self.half_closed = true;
                return false;
            }
            Read::Closed(close) => {
                assert_eq!(from, Side::Handler);
                if close.status.code == Code::Ok {
                    assert_eq!(self.partial, None, "messages are whole before the end");
                }
            }
            Read::Failed(_) => {}
            // A call that its handler closed goes when the close was sent. Every other end is
            // announced by an event before any read.
            Read::Gone => {
                assert!(
                    from == Side::Caller && self.finished.is_some(),
                    "gone without an event"
                );
                self.end();
                return false;
            }
            other => panic!("{other:?}"),
        }
        assert!(self.told, "an end without an event");
        self.end();
        false
    }

    fn takes_chunk(&mut self, from: Side, chunk: &Chunk) {
        let (message, before) = match (chunk.begins, self.partial) {
            (Some(size), None) => {
                let message = (size, chunk.compressed);
                assert_eq!(self.sizes.pop_front(), Some(message), "in order");
                self.begun += 1;
                (message, 0)
            }
            (None, Some(partial)) => partial,
            wrong => panic!("begins, and what was read of the last message: {wrong:?}"),
        };
        let (size, compressed) = message;
        assert_eq!(chunk.compressed, compressed, "each piece has the flag");
        assert!(!chunk.data.is_empty() || size == 0, "an empty piece");
        check_bytes(from, self.id.value(), self.read, &chunk.data);
        self.read += chunk.data.len();
        let after = before + chunk.data.len();
        assert!(after <= size as usize, "no more than was declared");
        assert_eq!(chunk.ends, after == size as usize);
        self.partial = (!chunk.ends).then_some((message, after));
    }
}
