//! What is known of one call: what was sent each way, what was read, how it ended.

use bytes::Bytes;
use tunnel_core::{Chunk, Code, Read, StreamId};

/// One direction of a call.
#[derive(Debug, Default)]
pub(crate) struct Direction {
    /// Makes the content of this direction its own.
    salt: usize,
    /// The sizes of the messages begun.
    begun: Vec<usize>,
    /// What the sender has yet to write of the last of them.
    pub(crate) unwritten: usize,
    /// Whether the sender has finished in order.
    pub(crate) finished: bool,
    /// Messages that the receiver has read whole.
    pub(crate) read: usize,
    /// What it has read of the next.
    partial: Option<usize>,
    /// All the bytes it has read.
    pub(crate) bytes_read: usize,
}

impl Direction {
    fn new(salt: usize) -> Self {
        Self {
            salt,
            ..Self::default()
        }
    }

    fn byte(&self, message: usize, at: usize) -> u8 {
        (self.salt * 31 + message * 7 + at) as u8
    }

    /// A message of a size begins.
    pub(crate) fn begin(&mut self, size: usize) {
        assert_eq!(self.unwritten, 0, "the last message was not whole");
        self.begun.push(size);
        self.unwritten = size;
    }

    /// The next bytes of the message that has begun.
    pub(crate) fn content(&self, len: usize) -> Bytes {
        let message = self.begun.len() - 1;
        let from = self.begun[message] - self.unwritten;
        (from..from + len)
            .map(|at| self.byte(message, at))
            .collect()
    }

    pub(crate) fn wrote(&mut self, len: usize) {
        self.unwritten -= len;
    }

    /// The receiver takes a piece: it must be the next that was sent.
    pub(crate) fn receive(&mut self, chunk: &Chunk) {
        let message = self.read;
        let size = *self.begun.get(message).expect("a message was sent");
        match (chunk.begins, self.partial) {
            (Some(declared), None) => assert_eq!(declared as usize, size),
            (None, Some(_)) => {}
            wrong => panic!("begins, and what was read: {wrong:?}"),
        }
        let from = self.partial.unwrap_or(0);
        assert!(!chunk.data.is_empty() || size == 0);
        for (byte, at) in chunk.data.iter().zip(from..) {
            assert_eq!(*byte, self.byte(message, at));
        }
        self.bytes_read += chunk.data.len();
        let to = from + chunk.data.len();
        assert!(to <= size);
        assert_eq!(chunk.ends, to == size);
        self.partial = (!chunk.ends).then_some(to);
        self.read += usize::from(chunk.ends);
    }

    /// Of how many messages the receiver has read something.
    pub(crate) fn begun_reading(&self) -> u64 {
        (self.read + usize::from(self.partial.is_some())) as u64
    }

    /// The receiver is told that this is all.
    pub(crate) fn assert_complete(&self) {
        assert!(self.finished, "nobody has finished");
        assert_eq!((self.partial, self.read), (None, self.begun.len()));
    }
}

/// How a call ended at one of its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By the handler's close, in order.
    Closed,
    /// By the handler's reset.
    Reset,
    /// By the local application.
    Cancelled,
    /// By the library here or at the far end, or with the tunnel.
    Failed(Code),
}

/// The words of a close in order, and of a reset.
pub(crate) const CLOSED: &str = "closed";
pub(crate) const RESET: &str = "reset";

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) id: StreamId,
    pub(crate) up: Direction,
    pub(crate) down: Direction,
    pub(crate) at_caller: Option<End>,
    pub(crate) at_handler: Option<End>,
    /// Whether the handler knows it.
    pub(crate) opened: bool,
    pub(crate) half_closed: bool,
    pub(crate) headers: bool,
    /// Whether its own ends, a deadline or a drain may end it otherwise than in order.
    pub(crate) disturbed: bool,
}

impl Call {
    pub(crate) fn new(id: StreamId, disturbed: bool) -> Self {
        let salt = id.value() as usize;
        Self {
            id,
            up: Direction::new(2 * salt),
            down: Direction::new(2 * salt + 1),
            at_caller: None,
            at_handler: None,
            opened: false,
            half_closed: false,
            headers: false,
            disturbed,
        }
    }

    /// What the caller's application reads; whether there may be more now.
    pub(crate) fn read_at_caller(&mut self, read: Read) -> bool {
        match read {
            Read::Data(chunk) => {
                self.down.receive(&chunk);
                return true;
            }
            Read::Pending => {}
            Read::Closed(close) => {
                let end = match close.status.message.as_str() {
                    CLOSED => {
                        self.down.assert_complete();
                        End::Closed
                    }
                    RESET => End::Reset,
                    _ => End::Failed(close.status.code),
                };
                self.end_at_caller(end);
            }
            Read::Failed(error) => self.end_at_caller(End::Failed(error.code)),
            Read::Gone => assert!(self.at_caller.is_some(), "it ended without a reason"),
            other => panic!("a caller reads {other:?}"),
        }
        false
    }

    fn end_at_caller(&mut self, end: End) {
        assert_eq!(self.at_caller, None, "a call ends once");
        if let End::Failed(code) = end {
            assert!(self.disturbed, "an honest call failed: {code}");
        }
        self.at_caller = Some(end);
    }

    /// What the handler's application reads; whether there may be more now.
    pub(crate) fn read_at_handler(&mut self, read: Read) -> bool {
        match read {
            Read::Data(chunk) => {
                assert!(!self.half_closed);
                self.up.receive(&chunk);
                return true;
            }
            Read::Pending => assert!(!self.half_closed),
            Read::HalfClosed => {
                self.up.assert_complete();
                self.half_closed = true;
            }
            // The event that says so may still wait.
            Read::Failed(_) => assert!(self.disturbed),
            Read::Gone => {}
            other => panic!("a handler reads {other:?}"),
        }
        false
    }

    /// The handler's application is told that the call is over.
    pub(crate) fn cancelled_at_handler(&mut self, code: Code) {
        assert!(
            matches!(self.at_handler, None | Some(End::Closed)),
            "a call ends once"
        );
        assert!(self.disturbed, "an honest call failed: {code}");
        self.at_handler = Some(End::Failed(code));
    }
}
