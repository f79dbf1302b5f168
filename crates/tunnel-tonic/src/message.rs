//! gRPC messages between HTTP bodies and streams.
//!
//! A body is a sequence of messages, each with a prefix of five bytes: a flag (0 for identity) and a
//! length. A data frame of a body may hold several messages or a part of one. [`Splitter`] puts a
//! body on a stream; [`Gatherer`] makes a body from a stream's messages.

use bytes::{Bytes, BytesMut};
use tonic::Status;
use tunnel_core::{BodyRead, Read, RecvStream, SendStream, WriteError};

/// How many bytes one poll of a body gathers.
const GATHER: usize = 32 << 10;

/// Why a body could not be put on a stream.
#[derive(Debug)]
pub(crate) enum SplitError {
    /// The stream has ended, so the rest is not needed.
    Gone,
    /// The body is malformed.
    Malformed(Status),
}

impl From<WriteError> for SplitError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Gone | WriteError::Finished => Self::Gone,
            WriteError::Compressed => Self::Malformed(compressed()),
            other => Self::Malformed(Status::internal(other.to_string())),
        }
    }
}

/// Puts a body on a stream.
///
/// The stream does the work; this remembers whether a message is incomplete, for when the stream has
/// gone.
#[derive(Debug)]
pub(crate) struct Splitter {
    whole: bool,
}

impl Default for Splitter {
    fn default() -> Self {
        Self { whole: true }
    }
}

impl Splitter {
    /// Puts one data frame of a body, which is not empty, on a stream.
    pub(crate) fn feed(
        &mut self,
        data: Bytes,
        stream: &mut SendStream<'_>,
    ) -> Result<(), SplitError> {
        stream.body(data)?;
        self.whole = stream.is_whole();
        Ok(())
    }

    /// Whether no message is incomplete.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }
}

/// The error for compressed messages inside a tunnel.
pub(crate) fn compressed() -> Status {
    Status::unimplemented(
        "messages inside a tunnel are not compressed: do not set send_compressed on a client \
         used through a tunnel",
    )
}

/// The result of [`Gatherer::read`].
#[derive(Debug)]
pub(crate) enum Gathered {
    /// A data frame for the body; never empty.
    Data(Bytes),
    /// Nothing to read now.
    Pending,
    /// No more messages; never `Data` or `Pending`.
    End(Read),
}

/// Makes a body from messages.
#[derive(Debug, Default)]
pub(crate) struct Gatherer {
    /// Data that was read and not yet handed on, in this order.
    slice: Option<Bytes>,
    end: Option<Read>,
}

impl Gatherer {
    /// The rest of the last [`read`](Self::read). Ask this first: it needs no lock.
    pub(crate) fn next_ready(&mut self) -> Option<Gathered> {
        if let Some(slice) = self.slice.take() {
            return Some(Gathered::Data(slice));
        }
        self.end.take().map(Gathered::End)
    }

    /// Reads from a stream. Call it when nothing is ready.
    pub(crate) fn read(&mut self, stream: &mut RecvStream<'_>) -> Gathered {
        let mut buf = BytesMut::new();
        let BodyRead { slice, then, .. } = stream.body(GATHER, &mut buf);
        self.slice = slice;
        self.end = then.filter(|then| *then != Read::Pending);
        if !buf.is_empty() {
            return Gathered::Data(buf.freeze());
        }
        self.next_ready().unwrap_or(Gathered::Pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use tunnel_core::{Config, Connection, Frame, FrameRef, FrameSink, Metadata, Offer, Side};

    struct Frames(Vec<Frame>);

    impl FrameSink for Frames {
        fn frame(&mut self, frame: FrameRef<'_>) -> usize {
            self.0.push(frame.to_owned());
            1
        }
    }

    fn carry(from: &mut Connection, to: &mut Connection) {
        let mut frames = Frames(Vec::new());
        let now = Instant::now();
        from.transmit(now, usize::MAX, &mut frames);
        for frame in frames.0 {
            to.handle_frame(now, frame).expect("well-formed");
        }
    }

    /// Sends a body in pieces through a pair of connections and returns what comes out.
    fn through(pieces: &[&[u8]]) -> Result<Vec<u8>, SplitError> {
        let now = Instant::now();
        let mut caller = Connection::new(Side::Caller, Config::default());
        let mut handler = Connection::new(Side::Handler, Config::default());
        caller.start(now, Offer::of(&Config::default()));
        handler.start(now, Offer::of(&Config::default()));
        carry(&mut handler, &mut caller);
        let id = caller.open(now, "/s/m", Metadata::new()).expect("ready");
        let mut splitter = Splitter::default();
        let mut gatherer = Gatherer::default();
        let mut out = Vec::new();
        for piece in pieces {
            splitter.feed(Bytes::copy_from_slice(piece), &mut caller.send_stream(id))?;
            carry(&mut caller, &mut handler);
            loop {
                let next = gatherer
                    .next_ready()
                    .unwrap_or_else(|| gatherer.read(&mut handler.recv_stream(id)));
                match next {
                    Gathered::Data(data) => {
                        assert!(!data.is_empty(), "never an empty data frame");
                        out.extend_from_slice(&data);
                    }
                    _ => break,
                }
            }
            carry(&mut handler, &mut caller);
        }
        assert!(splitter.is_whole());
        Ok(out)
    }

    fn message(len: usize) -> Vec<u8> {
        let mut m = vec![0];
        m.extend_from_slice(&(len as u32).to_be_bytes());
        m.extend((0..len).map(|i| i as u8));
        m
    }

    #[test]
    fn a_body_comes_out_as_it_went_in_however_it_is_cut() {
        let body: Vec<u8> = [0, 1, 4095, 4096, 0, 0, 20_000, 3]
            .into_iter()
            .flat_map(message)
            .collect();
        for cut in [1, 3, 5, 7, 1000, 16_384, body.len()] {
            let pieces: Vec<_> = body.chunks(cut).collect();
            assert_eq!(through(&pieces).expect("well-formed"), body, "cut {cut}");
        }
    }

    #[test]
    fn a_compressed_message_is_refused_with_a_clear_error() {
        let Err(SplitError::Malformed(status)) = through(&[&[1, 0, 0, 0, 1, 7]]) else {
            panic!("must be refused");
        };
        assert_eq!(status.code(), tonic::Code::Unimplemented);
        assert!(status.message().contains("compressed"));
    }
}
