//! What the application knows of one call, and what it is owed.

use std::collections::VecDeque;

use tunnel_core::{Chunk, FrameKind, Read, Side, StreamId};

use super::check_bytes;

/// How a call stands for its application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Live,
    /// Handler: told that it is over. Both: abandoned by the application itself, or its end was
    /// read.
    Over,
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) id: StreamId,
    pub(crate) standing: Standing,
    /// The sizes of the messages that the peer began and the application has not.
    pub(crate) sizes: VecDeque<u32>,
    /// Payload that came from the peer, taken or not.
    pub(crate) fed: usize,
    /// Payload that was read.
    pub(crate) read: usize,
    /// Messages of which something was read.
    pub(crate) begun: usize,
    /// The size of the message at hand, and what was read of it.
    partial: Option<(u32, usize)>,
    /// Whether it was told that there is something to read, since it last found nothing.
    told: bool,
    half_closed: bool,
    /// Payload that was given to be sent.
    pub(crate) given: usize,
    /// What it has yet to give of the message it began.
    pub(crate) unwritten: usize,
    /// Handler: whether it has closed the call.
    pub(crate) closed: bool,
    /// Whether it was told to wait before it gives more.
    pub(crate) waits: bool,
}

impl Call {
    pub(crate) fn new(id: StreamId) -> Self {
        Self {
            id,
            standing: Standing::Live,
            sizes: VecDeque::new(),
            fed: 0,
            read: 0,
            begun: 0,
            partial: None,
            told: false,
            half_closed: false,
            given: 0,
            unwritten: 0,
            closed: false,
            waits: false,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.standing == Standing::Over
    }

    pub(crate) fn end(&mut self) {
        self.standing = Standing::Over;
        self.waits = false;
    }

    /// The peer says something on its stream, whether it is heard or not.
    pub(crate) fn is_fed(&mut self, kind: &FrameKind) {
        if let FrameKind::Message { size, .. } = kind {
            self.sizes.push_back(*size);
        }
        if let FrameKind::Message { data, .. } | FrameKind::MoreData(data) = kind {
            self.fed += data.len();
        }
    }

    /// It is told that there is something to read.
    pub(crate) fn readable(&mut self) {
        assert!(!self.told, "told twice, with nothing read in between");
        self.told = true;
    }

    /// Whether reading on makes sense.
    pub(crate) fn takes(&mut self, side: Side, read: Read) -> bool {
        if self.is_over() {
            assert_eq!(read, Read::Gone);
            return false;
        }
        match read {
            Read::Pending => {
                self.told = false;
                assert!(!self.half_closed, "the end stays the end");
                return false;
            }
            Read::Data(chunk) => {
                assert!(!self.half_closed, "nothing comes behind the end");
                // Of a message that is not whole there is more than was told of, where its
                // window has grown meanwhile: its rest is still to come, and will be told of.
                assert!(
                    self.told || !chunk.ends,
                    "a whole message, and nobody is told"
                );
                self.takes_chunk(&chunk);
                return true;
            }
            Read::HalfClosed => {
                assert_eq!(side, Side::Handler);
                assert_eq!(self.partial, None, "messages are whole before the end");
                assert_eq!(self.sizes.len(), 0, "all messages come before the end");
                assert!(self.told);
                self.half_closed = true;
                return false;
            }
            Read::Closed(close) => {
                assert_eq!(side, Side::Caller);
                if close.status.code == tunnel_core::Code::Ok {
                    assert_eq!(self.partial, None, "messages are whole before the end");
                }
            }
            Read::Failed(_) => {}
            // What a handler has closed goes when that was written. Of any other end there is
            // an event, which comes before any read.
            Read::Gone => {
                assert!(self.closed, "it has gone, and nobody is told");
                self.end();
                return false;
            }
            other => panic!("{other:?}"),
        }
        assert!(self.told, "an end, and nobody is told");
        self.end();
        false
    }

    fn takes_chunk(&mut self, chunk: &Chunk) {
        let (size, before) = match (chunk.begins, self.partial) {
            (Some(size), None) => {
                assert_eq!(self.sizes.pop_front(), Some(size), "in order");
                self.begun += 1;
                (size, 0)
            }
            (None, Some(partial)) => partial,
            wrong => panic!("begins, and what was read of the last: {wrong:?}"),
        };
        assert!(!chunk.data.is_empty() || size == 0, "a piece of nothing");
        check_bytes(self.id.value(), self.read, &chunk.data);
        self.read += chunk.data.len();
        let after = before + chunk.data.len();
        assert!(after <= size as usize, "no more than was declared");
        assert_eq!(chunk.ends, after == size as usize);
        self.partial = (!chunk.ends).then_some((size, after));
    }
}
