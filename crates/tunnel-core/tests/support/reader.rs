//! An application that reads a stream.

use bytes::Bytes;
use tunnel_core::{Chunk, Connection, Read, StreamId};

/// Assembles messages from pieces, and checks the pieces.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) id: StreamId,
    /// Whole messages.
    pub(crate) messages: Vec<Vec<u8>>,
    /// The unfinished message: its size, and its content so far.
    pub(crate) partial: Option<(u32, Vec<u8>)>,
}

impl Reader {
    pub(crate) fn new(id: StreamId) -> Self {
        Self {
            id,
            messages: Vec::new(),
            partial: None,
        }
    }

    /// Reads one piece.
    pub(crate) fn read(&mut self, conn: &mut Connection) -> Read {
        let read = conn.recv_stream(self.id).read();
        if let Read::Data(chunk) = &read {
            self.take(chunk);
        }
        read
    }

    /// Reads until no data is left; returns the result after the data.
    pub(crate) fn read_all(&mut self, conn: &mut Connection) -> Read {
        loop {
            match self.read(conn) {
                Read::Data(_) => {}
                other => return other,
            }
        }
    }

    fn take(&mut self, chunk: &Chunk) {
        match (chunk.begins, &self.partial) {
            (Some(size), None) => self.partial = Some((size, Vec::new())),
            (None, Some(_)) => {}
            (begins, partial) => panic!("a piece with {begins:?}, inside: {}", partial.is_some()),
        }
        let (size, mut held) = self.partial.take().expect("it has begun");
        held.extend_from_slice(&chunk.data);
        assert!(!chunk.data.is_empty() || size == 0, "an empty piece");
        assert!(held.len() <= size as usize, "more than was declared");
        assert_eq!(chunk.ends, held.len() == size as usize);
        if chunk.ends {
            self.messages.push(held);
        } else {
            self.partial = Some((size, held));
        }
    }
}

/// Reads whole messages until no data is left; returns them and the result after the data.
pub(crate) fn read_all(conn: &mut Connection, id: StreamId) -> (Vec<Vec<u8>>, Read) {
    let mut reader = Reader::new(id);
    let last = reader.read_all(conn);
    let cut = reader.partial.map(|(size, held)| (size, held.len()));
    assert_eq!(cut, None, "no message is cut short");
    (reader.messages, last)
}

pub(crate) fn bytes(len: usize) -> Bytes {
    super::pattern(len).into()
}
