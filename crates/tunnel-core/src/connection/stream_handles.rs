//! The two halves of a stream, as its user sees them.

use bytes::{Bytes, BytesMut};

use super::Connection;
use crate::config::Values;
use crate::event::{Event, Note};
use crate::frame::CloseStream;
use crate::streams::StreamId;
use crate::streams::body::Begin;
use crate::streams::context::Context;
use crate::streams::recv::{Chunk, RecvEnd, Taken};
use crate::streams::released::Outgoing;
use crate::streams::send::Head;
use crate::streams::state::{RecvState, SendState};
use crate::streams::stream::Stream;
use crate::{Code, Initiator, Metadata, Side, Status, StreamError, WriteError};

/// The sending half of one stream; from [`Connection::send_stream`].
#[derive(Debug)]
#[must_use = "a handle does nothing by itself"]
pub struct SendStream<'a> {
    conn: &'a mut Connection,
    id: i64,
}

impl<'a> SendStream<'a> {
    pub(super) fn new(conn: &'a mut Connection, id: StreamId) -> Self {
        Self { conn, id: id.0 }
    }

    /// Runs an operation on the stream and then schedules its frames.
    fn with<T>(
        &mut self,
        op: impl FnOnce(&mut Stream, &mut Context<'_>, Side) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        let side = self.conn.store.side;
        let (stream, mut rest) = self.conn.store.split(self.id).ok_or(WriteError::Gone)?;
        let before = stream.send.queued();
        let result = op(stream, &mut rest, side);
        rest.counts.queued += stream.send.queued() - before;
        rest.enqueue(stream);
        result
    }

    /// Like `with`, for an operation that takes data. After an error the remaining data is
    /// released, not dropped.
    fn with_data(
        &mut self,
        mut data: Bytes,
        op: impl FnOnce(&mut Stream, &mut Outgoing, &mut Bytes) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let result = self.with(|stream, rest, _| op(stream, rest.out, &mut data));
        if result.is_err() {
            self.conn.store.out.put(data);
        }
        result
    }

    /// Handler: sends the response headers. Without this call, empty headers are sent before the
    /// first message, and a close without messages is sent without headers.
    ///
    /// # Errors
    ///
    /// [`WriteError::HeadersSent`] after the first message or the second time,
    /// [`WriteError::MetadataSize`], [`WriteError::WrongSide`] at a caller, [`WriteError::Gone`].
    pub fn headers(&mut self, headers: Metadata) -> Result<(), WriteError> {
        self.with(|stream, rest, side| {
            check_side(side, Side::Handler)?;
            check_metadata(headers.size(), &rest.config.v)?;
            match (&stream.send.head, stream.send.state) {
                (_, SendState::Done) => Err(WriteError::Gone),
                (_, SendState::Finishing) => Err(WriteError::Finished),
                (Head::Missing, _) => {
                    stream.send.head = Head::Pending(headers);
                    Ok(())
                }
                _ => Err(WriteError::HeadersSent),
            }
        })
    }

    /// Sends a whole message.
    ///
    /// # Errors
    ///
    /// As [`begin_message`](Self::begin_message) and [`write`](Self::write).
    pub fn message(&mut self, data: Bytes) -> Result<(), WriteError> {
        let size =
            u32::try_from(data.len()).map_err(|_| WriteError::MessageTooLarge(data.len()))?;
        self.with_data(data, |stream, out, data| {
            ensure_head(stream);
            stream.send.begin(Begin::plain(size))?;
            stream.send.write(data, out)
        })
    }

    /// Begins a message of `size` bytes, whose content follows by [`write`](Self::write).
    ///
    /// # Errors
    ///
    /// [`WriteError::MessageIncomplete`] inside another message, [`WriteError::Finished`],
    /// [`WriteError::Gone`].
    pub fn begin_message(&mut self, size: u32) -> Result<(), WriteError> {
        self.with(|stream, _, _| {
            ensure_head(stream);
            stream.send.begin(Begin::plain(size))
        })
    }

    /// Appends bytes to the message that was begun. They are queued even if the stream is not
    /// [writable](Self::is_writable).
    ///
    /// # Errors
    ///
    /// [`WriteError::ExcessData`] beyond the message's size, [`WriteError::Finished`],
    /// [`WriteError::Gone`].
    pub fn write(&mut self, data: Bytes) -> Result<(), WriteError> {
        self.with_data(data, |stream, out, data| stream.send.write(data, out))
    }

    /// Appends the next bytes of a gRPC body: messages, each with its prefix (a flag, 1 if the message
    /// is compressed and 0 otherwise, and the length in four bytes, big-endian). The bytes may be
    /// split anywhere. Many small messages at once cost little more than one.
    ///
    /// # Errors
    ///
    /// [`WriteError::Compressed`] for a compressed message, unless both ends
    /// [offer](crate::Offer::compressed_messages) to carry them, and [`WriteError::Flags`] for other
    /// flags; the messages before it were queued, and no later data can be. Otherwise as [`begin_message`](Self::begin_message) and
    /// [`write`](Self::write).
    pub fn body(&mut self, data: Bytes) -> Result<(), WriteError> {
        let compressed = self.conn.store.carries_compressed;
        self.with_data(data, |stream, out, data| {
            ensure_head(stream);
            stream.send.body(data, compressed, out)
        })
    }

    /// Whether no message is half written, so that the sending half may be finished. `false` if
    /// the stream has gone.
    pub fn is_whole(&self) -> bool {
        let stream = self.conn.store.get(self.id);
        stream.is_some_and(|stream| stream.send.is_whole())
    }

    /// Whether less is queued than [`send_buffer`](crate::config::ConfigBuilder::send_buffer).
    /// `Ok(false)` requests an [`Event::Writable`](crate::Event::Writable); `Ok(true)` withdraws a
    /// pending request.
    ///
    /// # Errors
    ///
    /// [`WriteError::Gone`] if nothing more will ever be sent.
    pub fn is_writable(&mut self) -> Result<bool, WriteError> {
        let (stream, rest) = self.conn.store.split(self.id).ok_or(WriteError::Gone)?;
        if stream.send.state == SendState::Done {
            return Err(WriteError::Gone);
        }
        let writable = stream.send.queued() < rest.config.v.send_buffer;
        stream.send.writer_waits = !writable;
        Ok(writable)
    }

    /// Caller: ends the request (half-close).
    ///
    /// # Errors
    ///
    /// [`WriteError::MessageIncomplete`], [`WriteError::Finished`] the second time,
    /// [`WriteError::WrongSide`] at a handler, [`WriteError::Gone`].
    pub fn finish(&mut self) -> Result<(), WriteError> {
        self.with(|stream, _, side| {
            check_side(side, Side::Caller)?;
            stream.send.finish()
        })
    }

    /// Handler: ends the call after the queued messages. The stream is gone when the end was sent.
    ///
    /// Over the metadata limit, a status loses its details and the end of its message, and trailers
    /// are left out; an [`Event::Note`](crate::Event::Note) says so. The code always arrives.
    ///
    /// # Errors
    ///
    /// [`WriteError::MessageIncomplete`], [`WriteError::Finished`] the second time,
    /// [`WriteError::WrongSide`] at a caller, [`WriteError::Gone`].
    pub fn close(&mut self, trailers: Metadata, status: Status) -> Result<(), WriteError> {
        let status = self.conn.bounded_status(status);
        self.with(|stream, rest, side| {
            check_side(side, Side::Handler)?;
            stream.send.finish()?;
            let (size, limit) = (trailers.size(), rest.config.v.max_metadata_size);
            let trailers = if size > limit {
                rest.events
                    .push_back(Event::Note(Note::TrailersDropped { size, limit }));
                Metadata::new()
            } else {
                trailers
            };
            stream.send.closing = Some(Box::new(CloseStream { trailers, status }));
            Ok(())
        })
    }
}

fn check_side(side: Side, needed: Side) -> Result<(), WriteError> {
    if side == needed {
        Ok(())
    } else {
        Err(WriteError::WrongSide)
    }
}

fn check_metadata(size: usize, v: &Values) -> Result<(), WriteError> {
    let limit = v.max_metadata_size;
    if size > limit {
        return Err(WriteError::MetadataSize { size, limit });
    }
    Ok(())
}

/// Queues a handler's headers before its first message.
fn ensure_head(stream: &mut Stream) {
    if matches!(stream.send.head, Head::Missing) && stream.send.state == SendState::Open {
        stream.send.head = Head::Pending(Metadata::new());
    }
}

/// The result of [`RecvStream::read`], or of [`RecvStream::message`] with `T` = [`Bytes`].
#[derive(Clone, Debug, PartialEq)]
#[must_use = "data and ends are returned once"]
#[non_exhaustive]
pub enum Read<T = Chunk> {
    /// A piece of a message, or a whole message.
    Data(T),
    /// Nothing can be read now. An [`Event::Readable`](crate::Event::Readable) will come.
    Pending,
    /// Handler: the caller has half-closed, and everything was read.
    HalfClosed,
    /// Caller: the call has ended, and everything was read. The stream is gone.
    Closed(CloseStream),
    /// The call has failed at this end. The stream is gone.
    Failed(StreamError),
    /// The stream does not exist or has gone.
    Gone,
}

/// The result of [`RecvStream::body`].
#[derive(Clone, Debug, PartialEq)]
#[must_use = "data and ends are returned once"]
#[non_exhaustive]
pub struct BodyRead {
    /// A large piece of the body that was not copied. It follows the content of the buffer.
    pub slice: Option<Bytes>,
    /// What follows: [`Read::Pending`] or an end, never [`Read::Data`]. `None` if there may be more
    /// to read now.
    pub then: Option<Read>,
}

impl BodyRead {
    fn end(then: Read) -> Self {
        Self {
            slice: None,
            then: Some(then),
        }
    }
}

/// The receiving half of one stream; from [`Connection::recv_stream`].
///
/// There are three ways to read: [`message`](Self::message) returns whole messages,
/// [`read`](Self::read) pieces without copying, [`body`](Self::body) many messages at once. Use one
/// of them for a stream.
#[derive(Debug)]
#[must_use = "a handle does nothing by itself"]
pub struct RecvStream<'a> {
    conn: &'a mut Connection,
    id: i64,
}

impl<'a> RecvStream<'a> {
    pub(super) fn new(conn: &'a mut Connection, id: StreamId) -> Self {
        Self { conn, id: id.0 }
    }

    /// Caller: takes the response headers. `None` before they arrive, after they were taken, and
    /// for a call that was closed without headers.
    pub fn take_headers(&mut self) -> Option<Metadata> {
        self.conn.store.get_mut(self.id)?.recv.headers.take()
    }

    /// Reads the next whole message, or the end.
    ///
    /// A message that arrives in one frame is not copied. A larger one is assembled in the stream, so
    /// nothing is lost between calls. Its credit is returned as it arrives, so it may be larger
    /// than the window.
    ///
    /// It has no place for the flag of a compressed message: such a message fails the call with
    /// UNIMPLEMENTED. A peer sends them only by [`SendStream::body`]; read them by
    /// [`read`](Self::read) or [`body`](Self::body).
    ///
    /// ```
    /// # use tunnel_core::{Connection, Read, StreamId};
    /// fn print_messages(conn: &mut Connection, id: StreamId) {
    ///     loop {
    ///         match conn.recv_stream(id).message() {
    ///             Read::Data(message) => println!("{} bytes", message.len()),
    ///             Read::Pending => break, // until `Event::Readable(id)`
    ///             end => break println!("{end:?}"),
    ///         }
    ///     }
    /// }
    /// ```
    pub fn message(&mut self) -> Read<Bytes> {
        loop {
            let chunk = match self.read() {
                Read::Data(chunk) => chunk,
                Read::Pending => return Read::Pending,
                Read::HalfClosed => return Read::HalfClosed,
                Read::Closed(close) => return Read::Closed(close),
                Read::Failed(error) => return Read::Failed(error),
                Read::Gone => return Read::Gone,
            };
            if chunk.compressed {
                return self.refuse_compressed();
            }
            if let Some(message) = self.conn.store.assemble(self.id, chunk) {
                return Read::Data(message);
            }
        }
    }

    /// Ends the call, because a reader of whole messages would take a compressed one for plain.
    fn refuse_compressed(&mut self) -> Read<Bytes> {
        let text = "the message is compressed, and its reader does not decompress";
        let error = StreamError::new(Code::Unimplemented, text, Initiator::Library);
        let id = StreamId(self.id);
        match self.conn.store.side {
            Side::Caller => self.conn.cancel(id),
            Side::Handler => self.conn.reset(id, error.to_status()),
        }
        Read::Failed(error)
    }

    /// Reads the next piece of a message, or the end.
    ///
    /// Reading returns credit to the sender, in batches. A message larger than the window is held
    /// back until a quarter of it has arrived, because its reader will reserve memory for all of
    /// it. It is handed on earlier when the tunnel has no memory to hold it.
    pub fn read(&mut self) -> Read {
        let read = self.read_inner();
        self.conn.after_change();
        read
    }

    /// Appends what can be read now to `buf` as a gRPC body: each message with its prefix. Stops
    /// when `buf` holds `limit` bytes or more, at a large piece, or when nothing is left. Cheaper
    /// than [`read`](Self::read) for small messages.
    pub fn body(&mut self, limit: usize, buf: &mut BytesMut) -> BodyRead {
        let read = self.body_inner(limit, buf);
        self.conn.after_change();
        read
    }

    fn body_inner(&mut self, limit: usize, buf: &mut BytesMut) -> BodyRead {
        let Some((stream, mut rest)) = self.conn.store.split(self.id) else {
            return BodyRead::end(Read::Gone);
        };
        let large = stream.large(rest.config);
        let mut moved = stream.recv.next_body(large, limit, buf, rest.out);
        rest.taken(stream, moved.taken);
        let open = stream.recv.state == RecvState::Open;
        if !moved.more && open && !rest.hold(stream) {
            // As in `read`, there is no memory left to hold the message.
            moved = stream.recv.next_body(usize::MAX, limit, buf, rest.out);
            rest.taken(stream, moved.taken);
            moved.more |= moved.taken.bytes > 0;
        }
        if moved.more {
            rest.enqueue(stream);
            return BodyRead {
                slice: moved.slice,
                then: None,
            };
        }
        BodyRead::end(if open {
            stream.recv.reader_told = false;
            stream.recv.reader_waits = true;
            rest.grow_window(stream);
            rest.enqueue(stream);
            Read::Pending
        } else {
            self.take_end()
        })
    }

    fn read_inner(&mut self) -> Read {
        let Some((stream, mut rest)) = self.conn.store.split(self.id) else {
            return Read::Gone;
        };
        let large = stream.large(rest.config);
        let mut next = stream.recv.next_chunk(large);
        if next.is_none() {
            if stream.recv.state == RecvState::Ended {
                return self.take_end();
            }
            if !rest.hold(stream) {
                // No memory is left to hold the message, and its sender waits for credit, so the
                // message is handed on early. A whole window of it has arrived: a sender cannot
                // make the reader reserve memory for free.
                next = stream.recv.next_chunk(usize::MAX);
            }
        }
        if let Some(chunk) = next {
            rest.taken(stream, Taken::chunk(&chunk));
            rest.enqueue(stream);
            return Read::Data(chunk);
        }
        stream.recv.reader_told = false;
        stream.recv.reader_waits = true;
        rest.grow_window(stream);
        rest.enqueue(stream);
        Read::Pending
    }

    fn take_end(&mut self) -> Read {
        let Some(stream) = self.conn.store.get_mut(self.id) else {
            return Read::Gone;
        };
        if matches!(stream.recv.end, Some(RecvEnd::HalfClosed)) {
            return Read::HalfClosed;
        }
        let end = stream.recv.end.take();
        self.conn.store.remove(self.id);
        match end {
            Some(RecvEnd::Closed(close)) => Read::Closed(*close),
            Some(RecvEnd::Failed(error)) => Read::Failed(*error),
            Some(RecvEnd::HalfClosed) | None => Read::Gone,
        }
    }
}
