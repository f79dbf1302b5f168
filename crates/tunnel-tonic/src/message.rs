//! gRPC messages between HTTP bodies and streams.
//!
//! A body is a sequence of messages, each with a prefix of five bytes: a flag (1 if the message is
//! compressed) and a length. A data frame of a body may hold several messages or a part of one. [`BodyWriter`] puts a
//! body on a stream; [`BodyReader`] makes a body from a stream's messages.

use bytes::{Bytes, BytesMut};
use tonic::Status;
use tunnel_core::{BodyRead, Read, RecvStream, SendStream, WriteError};

use crate::compression::edge::{MessagesOf, unnamed};

/// How many bytes one poll of a body gathers.
const GATHER: usize = 32 << 10;

/// Why a body could not be put on a stream.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The stream has ended, so the rest is not needed.
    Gone,
    /// The body is malformed.
    Malformed(Status),
}

impl From<WriteError> for BodyError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Gone | WriteError::Finished => Self::Gone,
            other => Self::Malformed(Status::internal(other.to_string())),
        }
    }
}

/// Puts a body on a stream.
///
/// The stream does the work. The writer only records whether a message is incomplete, for the case
/// that the stream has gone.
#[derive(Debug)]
pub(crate) struct BodyWriter {
    of: MessagesOf,
    whole: bool,
}

impl BodyWriter {
    pub(crate) fn new(of: MessagesOf) -> Self {
        Self { of, whole: true }
    }

    /// Puts one data frame of a body, which is not empty, on a stream.
    pub(crate) fn write(
        &mut self,
        data: Bytes,
        stream: &mut SendStream<'_>,
    ) -> Result<(), BodyError> {
        stream.body(data).map_err(|error| match error {
            WriteError::Compressed => BodyError::Malformed(unnamed(self.of)),
            other => other.into(),
        })?;
        self.whole = stream.is_whole();
        Ok(())
    }

    /// Whether no message is incomplete.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }
}

/// The result of reading from a stream.
#[derive(Debug)]
pub(crate) enum Piece {
    /// A data frame for the body; never empty.
    Data(Bytes),
    /// Nothing can be read now.
    Pending,
    /// No more messages; never `Data` or `Pending`.
    End(Read),
}

/// Makes a body from a stream's messages, and keeps data that does not fit one frame of the body.
///
/// It is small while it keeps nothing, because each idle call has one at each end.
#[derive(Debug, Default)]
pub(crate) enum BodyReader {
    #[default]
    Empty,
    /// The most common end of a request.
    HalfClosed,
    Kept(Box<(Option<Bytes>, Option<Read>)>),
}

impl BodyReader {
    fn keep(slice: Option<Bytes>, end: Option<Read>) -> Self {
        match (slice, end) {
            (None, None) => Self::Empty,
            (None, Some(Read::HalfClosed)) => Self::HalfClosed,
            kept => Self::Kept(Box::new(kept)),
        }
    }

    /// The next kept piece. Call it before reading from the stream: it needs no lock.
    pub(crate) fn next_ready(&mut self) -> Option<Piece> {
        let (slice, end) = match std::mem::take(self) {
            Self::Empty => return None,
            Self::HalfClosed => (None, Some(Read::HalfClosed)),
            Self::Kept(kept) => *kept,
        };
        let Some(slice) = slice else {
            return end.map(Piece::End);
        };
        *self = Self::keep(None, end);
        Some(Piece::Data(slice))
    }

    /// Reads from a stream. Call it when nothing is ready.
    pub(crate) fn read(&mut self, stream: &mut RecvStream<'_>) -> Piece {
        let mut buf = BytesMut::new();
        let BodyRead { slice, then, .. } = stream.body(GATHER, &mut buf);
        let end = then.filter(|then| *then != Read::Pending);
        if !buf.is_empty() {
            *self = Self::keep(slice, end);
            return Piece::Data(buf.freeze());
        }
        match (slice, end) {
            (Some(slice), end) => {
                *self = Self::keep(None, end);
                Piece::Data(slice)
            }
            (None, Some(end)) => Piece::End(end),
            (None, None) => Piece::Pending,
        }
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
    fn through(pieces: &[&[u8]]) -> Result<Vec<u8>, BodyError> {
        through_with(Offer::of(&Config::default()), pieces)
    }

    fn through_with(offer: Offer, pieces: &[&[u8]]) -> Result<Vec<u8>, BodyError> {
        let now = Instant::now();
        let mut caller = Connection::new(Side::Caller, Config::default());
        let mut handler = Connection::new(Side::Handler, Config::default());
        caller.start(now, offer);
        handler.start(now, offer);
        carry(&mut handler, &mut caller);
        let id = caller.open(now, "/s/m", Metadata::new()).expect("ready");
        let mut writer = BodyWriter::new(MessagesOf::Client);
        let mut reader = BodyReader::default();
        let mut out = Vec::new();
        for piece in pieces {
            writer.write(Bytes::copy_from_slice(piece), &mut caller.send_stream(id))?;
            carry(&mut caller, &mut handler);
            loop {
                let next = reader
                    .next_ready()
                    .unwrap_or_else(|| reader.read(&mut handler.recv_stream(id)));
                match next {
                    Piece::Data(data) => {
                        assert!(!data.is_empty(), "never an empty data frame");
                        out.extend_from_slice(&data);
                    }
                    _ => break,
                }
            }
            carry(&mut handler, &mut caller);
        }
        assert!(writer.is_whole());
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
    fn a_compressed_message_passes_only_where_both_ends_carry_it() {
        let piece: &[u8] = &[1, 0, 0, 0, 1, 7];
        assert_eq!(through(&[piece]).expect("carried"), piece);
        let mut offer = Offer::of(&Config::default());
        offer.compressed_messages = false;
        let Err(BodyError::Malformed(status)) = through_with(offer, &[piece]) else {
            panic!("must be refused");
        };
        assert_eq!(status.code(), tonic::Code::Internal);
        assert!(
            status.message().contains("the client's request"),
            "{status:?}"
        );
    }
}
