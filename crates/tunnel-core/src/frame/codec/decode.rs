//! The decoder: from bytes to a frame.
//!
//! The decoder walks over the message once. Fields that occur twice are merged as protobuf says: of
//! numbers and texts the last value counts, lists grow, messages of one field merge, and another
//! member of a `oneof` replaces the first.

use std::ops::Range;

use bytes::{Buf, Bytes};

use super::super::{CloseStream, Frame, FrameKind, NewStream, Settings};
use super::lists::{Details, Entries};
use super::wire::{Field, Reader, WireType};
use super::{DecodeError, data};
use crate::{Code, Metadata, Side, Status, StreamId};

/// The payload stays a slice of its frame if at most this many bytes of the frame are outside the
/// payload. The known fields need less. A peer that pads its frames with unknown fields could
/// otherwise keep large frames alive with small payloads, which no counter includes.
const MOST_AROUND: usize = 64;

/// Parses a frame, see [`super::decode`].
pub(super) fn frame(from: Side, bytes: Bytes) -> Result<Frame, DecodeError> {
    if let Some(frame) = data::read(&bytes) {
        let data = narrow(bytes, frame.data);
        return Ok(Frame {
            stream_id: StreamId::new(frame.stream_id),
            kind: match frame.begins {
                Some(size) => FrameKind::Message {
                    size,
                    data,
                    compressed: false,
                },
                None => FrameKind::MoreData(data),
            },
        });
    }
    any_frame(from, bytes)
}

/// Parses a frame with fields of any kind and in any order.
fn any_frame(from: Side, bytes: Bytes) -> Result<Frame, DecodeError> {
    let mut stream_id = 0;
    let mut kind = Partial::Unset;
    let mut reader = Reader::new(&bytes);
    while let Some(field) = reader.field()? {
        match field.number {
            1 => stream_id = reader.integer(field)? as i64,
            2..=7 => kind.merge(from, field, &mut reader)?,
            _ => reader.skip(field)?,
        }
    }

    let kind = match kind {
        Partial::Unset => FrameKind::Unknown,
        Partial::Message {
            size,
            data,
            compressed,
        } => FrameKind::Message {
            size,
            data: narrow(bytes, data),
            compressed,
        },
        Partial::MoreData(data) => FrameKind::MoreData(narrow(bytes, data)),
        Partial::Empty(kind) => kind,
        Partial::WindowUpdate(n) => FrameKind::WindowUpdate(n),
        Partial::Headers(md) => FrameKind::Headers(md.finish()),
        Partial::NewStream(new, headers) => FrameKind::NewStream(NewStream {
            headers: headers.finish(),
            ..new
        }),
        Partial::Close(status, details, trailers) => {
            let details = details.finish();
            FrameKind::Close(CloseStream {
                trailers: match details {
                    Some(_) => trailers.finish(),
                    None => Metadata::over_limit(),
                },
                status: Status {
                    details: details.unwrap_or_default(),
                    ..status
                },
            })
        }
        Partial::Settings(settings) => FrameKind::Settings(settings),
    };
    Ok(Frame {
        stream_id: StreamId::new(stream_id),
        kind,
    })
}

/// A part of `bytes`, in place: cheaper than a slice, which counts references
/// up for itself and down for the whole.
fn narrow(mut bytes: Bytes, part: Range<usize>) -> Bytes {
    if part.is_empty() {
        // An empty slice would keep the memory alive too.
        return Bytes::new();
    }
    if bytes.len() - part.len() > MOST_AROUND {
        return Bytes::copy_from_slice(&bytes[part]);
    }
    bytes.truncate(part.end);
    bytes.advance(part.start);
    bytes
}

/// The `oneof` of a frame, as far as it has been read.
enum Partial<'a> {
    Unset,
    Settings(Settings),
    NewStream(NewStream, Entries<'a>),
    Headers(Entries<'a>),
    Message {
        size: u32,
        data: Range<usize>,
        compressed: bool,
    },
    MoreData(Range<usize>),
    Close(Status, Details<'a>, Entries<'a>),
    WindowUpdate(u32),
    /// A kind without content.
    Empty(FrameKind),
}

impl<'a> Partial<'a> {
    /// Reads one member, numbered 2 to 7. It is merged with an earlier value of the same member and
    /// replaces another member.
    fn merge(
        &mut self,
        from: Side,
        field: Field,
        reader: &mut Reader<'a>,
    ) -> Result<(), DecodeError> {
        use Side::{Caller, Handler};
        match (from, field.number) {
            (_, 3) => {
                let message = reader.delimited(field)?;
                if !matches!(self, Self::Message { .. }) {
                    *self = Self::Message {
                        size: 0,
                        data: 0..0,
                        compressed: false,
                    };
                }
                if let Self::Message {
                    size,
                    data,
                    compressed,
                } = self
                {
                    read_message(message, size, data, compressed)?;
                }
            }
            (_, 4) => *self = Self::MoreData(reader.delimited(field)?.range()),
            (_, 7) => *self = Self::WindowUpdate(reader.integer(field)? as u32),
            (Caller, 2) => {
                let message = reader.delimited(field)?;
                if !matches!(self, Self::NewStream(..)) {
                    *self = Self::NewStream(NewStream::default(), Entries::default());
                }
                if let Self::NewStream(new, headers) = self {
                    read_new_stream(message, new, headers)?;
                }
            }
            (Handler, 2) => {
                let message = reader.delimited(field)?;
                if !matches!(self, Self::Headers(_)) {
                    *self = Self::Headers(Entries::default());
                }
                if let Self::Headers(md) = self {
                    md.read(message)?;
                }
            }
            (Handler, 5) => {
                let message = reader.delimited(field)?;
                if !matches!(self, Self::Close(..)) {
                    *self = Self::Close(Status::OK, Details::default(), Entries::default());
                }
                if let Self::Close(status, details, trailers) = self {
                    read_close(message, status, details, trailers)?;
                }
            }
            (Handler, 6) => {
                let message = reader.delimited(field)?;
                if !matches!(self, Self::Settings(_)) {
                    *self = Self::Settings(Settings::default());
                }
                if let Self::Settings(settings) = self {
                    read_settings(message, settings)?;
                }
            }
            (Caller, 5) => {
                read_empty(reader.delimited(field)?)?;
                *self = Self::Empty(FrameKind::HalfClose);
            }
            (Caller, 6) => {
                read_empty(reader.delimited(field)?)?;
                *self = Self::Empty(FrameKind::Cancel);
            }
            _ => reader.skip(field)?,
        }
        Ok(())
    }
}

fn read_message(
    mut reader: Reader<'_>,
    size: &mut u32,
    data: &mut Range<usize>,
    compressed: &mut bool,
) -> Result<(), DecodeError> {
    while let Some(field) = reader.field()? {
        match field.number {
            1 => *size = reader.integer(field)? as u32,
            2 => *data = reader.delimited(field)?.range(),
            3 => *compressed = reader.integer(field)? != 0,
            _ => reader.skip(field)?,
        }
    }
    Ok(())
}

fn read_new_stream<'a>(
    mut reader: Reader<'a>,
    new: &mut NewStream,
    headers: &mut Entries<'a>,
) -> Result<(), DecodeError> {
    while let Some(field) = reader.field()? {
        match field.number {
            1 => reader.text(field)?.clone_into(&mut new.method),
            2 => headers.read(reader.delimited(field)?)?,
            3 => new.initial_window = reader.integer(field)? as u32,
            4 => new.revision = reader.integer(field)? as i32,
            _ => reader.skip(field)?,
        }
    }
    Ok(())
}

fn read_close<'a>(
    mut reader: Reader<'a>,
    status: &mut Status,
    details: &mut Details<'a>,
    trailers: &mut Entries<'a>,
) -> Result<(), DecodeError> {
    while let Some(field) = reader.field()? {
        match field.number {
            1 => trailers.read(reader.delimited(field)?)?,
            2 => read_status(reader.delimited(field)?, status, details)?,
            _ => reader.skip(field)?,
        }
    }
    Ok(())
}

fn read_status<'a>(
    mut reader: Reader<'a>,
    status: &mut Status,
    details: &mut Details<'a>,
) -> Result<(), DecodeError> {
    while let Some(field) = reader.field()? {
        match field.number {
            1 => status.code = Code::from_wire(reader.integer(field)? as i32),
            2 => reader.text(field)?.clone_into(&mut status.message),
            3 => details.read(reader.delimited(field)?)?,
            _ => reader.skip(field)?,
        }
    }
    Ok(())
}

fn read_settings(mut reader: Reader<'_>, settings: &mut Settings) -> Result<(), DecodeError> {
    while let Some(field) = reader.field()? {
        match field.number {
            1 if field.wire == WireType::Delimited => {
                let mut packed = reader.delimited(field)?;
                while !packed.is_empty() {
                    settings.revisions.push(packed.varint()? as i32);
                }
            }
            1 => settings.revisions.push(reader.integer(field)? as i32),
            2 => settings.initial_window = reader.integer(field)? as u32,
            _ => reader.skip(field)?,
        }
    }
    Ok(())
}

fn read_empty(mut reader: Reader<'_>) -> Result<(), DecodeError> {
    while let Some(field) = reader.field()? {
        reader.skip(field)?;
    }
    Ok(())
}
