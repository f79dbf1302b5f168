//! From bytes to a frame.
//!
//! One walk over the message, in the order of the wire. What comes twice is
//! merged on the way, by the rules of protobuf: the later number or text
//! counts, lists grow, messages of one member merge, another member of the
//! `oneof` takes the place of the first.

use std::collections::HashMap;
use std::ops::Range;

use bytes::{Buf, Bytes};

use super::super::{CloseStream, Frame, FrameKind, NewStream, Settings};
use super::DecodeError;
use super::data;
use super::wire::{Field, Reader, WireType};
use crate::{Code, Metadata, Side, Status, StatusDetail};

/// Up to this many map entries, each key is compared with those after it;
/// beyond, they are hashed.
const FEW_ENTRIES: usize = 16;

/// How much of a frame may stand around its payload, in bytes, for the payload to stay a slice of
/// it. What the fields of a frame need is less; a peer that pads its frames with fields nobody
/// knows would have a small payload keep a large frame alive, unseen by all accounting.
const MOST_AROUND: usize = 64;

/// Parses a frame, see [`super::decode`].
pub(super) fn frame(from: Side, bytes: Bytes) -> Result<Frame, DecodeError> {
    if let Some(frame) = data::read(&bytes) {
        let data = narrow(bytes, frame.data);
        return Ok(Frame {
            stream_id: frame.stream_id,
            kind: match frame.begins {
                Some(size) => FrameKind::Message { size, data },
                None => FrameKind::MoreData(data),
            },
        });
    }
    any_frame(from, bytes)
}

/// The same for fields of any kind and in any order.
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
        Partial::Message { size, data } => FrameKind::Message {
            size,
            data: narrow(bytes, data),
        },
        Partial::MoreData(data) => FrameKind::MoreData(narrow(bytes, data)),
        Partial::Empty(kind) => kind,
        Partial::WindowUpdate(n) => FrameKind::WindowUpdate(n),
        Partial::Headers(md) => FrameKind::Headers(md.finish()),
        Partial::NewStream(new, headers) => FrameKind::NewStream(NewStream {
            headers: headers.finish(),
            ..new
        }),
        Partial::Close(status, trailers) => FrameKind::Close(CloseStream {
            trailers: trailers.finish(),
            status,
        }),
        Partial::Settings(settings) => FrameKind::Settings(settings),
    };
    Ok(Frame { stream_id, kind })
}

/// A part of `bytes`, in place: cheaper than a slice, which counts references
/// up for itself and down for the whole.
fn narrow(mut bytes: Bytes, part: Range<usize>) -> Bytes {
    if part.is_empty() {
        // An empty slice would keep the memory alive all the same.
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
    },
    MoreData(Range<usize>),
    Close(Status, Entries<'a>),
    WindowUpdate(u32),
    /// A kind that says nothing more.
    Empty(FrameKind),
}

impl<'a> Partial<'a> {
    /// Reads one member, numbered 2 to 7: into what there is of the same
    /// member, in place of what there is of another.
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
                    };
                }
                if let Self::Message { size, data } = self {
                    read_message(message, size, data)?;
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
                    *self = Self::Close(Status::OK, Entries::default());
                }
                if let Self::Close(status, trailers) = self {
                    read_close(message, status, trailers)?;
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
) -> Result<(), DecodeError> {
    while let Some(field) = reader.field()? {
        match field.number {
            1 => *size = reader.integer(field)? as u32,
            2 => *data = reader.delimited(field)?.range(),
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
    trailers: &mut Entries<'a>,
) -> Result<(), DecodeError> {
    while let Some(field) = reader.field()? {
        match field.number {
            1 => trailers.read(reader.delimited(field)?)?,
            2 => read_status(reader.delimited(field)?, status)?,
            _ => reader.skip(field)?,
        }
    }
    Ok(())
}

fn read_status(mut reader: Reader<'_>, status: &mut Status) -> Result<(), DecodeError> {
    while let Some(field) = reader.field()? {
        match field.number {
            1 => status.code = Code::from_wire(reader.integer(field)? as i32),
            2 => reader.text(field)?.clone_into(&mut status.message),
            3 => status.details.push(read_detail(reader.delimited(field)?)?),
            _ => reader.skip(field)?,
        }
    }
    Ok(())
}

fn read_detail(mut reader: Reader<'_>) -> Result<StatusDetail, DecodeError> {
    let mut type_url = "";
    let mut value: &[u8] = &[];
    while let Some(field) = reader.field()? {
        match field.number {
            1 => type_url = reader.text(field)?,
            2 => value = reader.delimited(field)?.bytes(),
            _ => reader.skip(field)?,
        }
    }
    Ok(StatusDetail {
        type_url: type_url.to_owned(),
        // Errors live long, and are small beside the buffer they came in.
        value: Bytes::copy_from_slice(value),
    })
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

/// Metadata as far as it has been read: the map entries of the wire, in order,
/// each as its key and then its values.
///
/// Borrowed, so that what a later entry replaces was never copied and the list
/// made in the end has exactly the size it needs.
#[derive(Default)]
struct Entries<'a>(Vec<Item<'a>>);

enum Item<'a> {
    Key(&'a str),
    Value(&'a str),
}

impl<'a> Entries<'a> {
    fn read(&mut self, mut reader: Reader<'a>) -> Result<(), DecodeError> {
        if self.0.capacity() == 0 && !reader.is_empty() {
            // Most lists fit; the others grow as they are read.
            self.0.reserve(FEW_ENTRIES);
        }
        while let Some(field) = reader.field()? {
            match field.number {
                1 => self.read_entry(reader.delimited(field)?)?,
                _ => reader.skip(field)?,
            }
        }
        Ok(())
    }

    fn read_entry(&mut self, mut reader: Reader<'a>) -> Result<(), DecodeError> {
        // The key comes first by custom, not by rule.
        let place = self.0.len();
        self.0.push(Item::Key(""));
        while let Some(field) = reader.field()? {
            match field.number {
                1 => self.0[place] = Item::Key(reader.text(field)?),
                2 => self.read_values(reader.delimited(field)?)?,
                _ => reader.skip(field)?,
            }
        }
        Ok(())
    }

    fn read_values(&mut self, mut reader: Reader<'a>) -> Result<(), DecodeError> {
        while let Some(field) = reader.field()? {
            match field.number {
                1 => self.0.push(Item::Value(reader.text(field)?)),
                _ => reader.skip(field)?,
            }
        }
        Ok(())
    }

    /// The list. Of entries with equal keys only the last counts.
    fn finish(mut self) -> Metadata {
        let replaced = self.replaced();
        if !replaced.is_empty() {
            self.remove(replaced);
        }

        let mut entries = 0;
        let mut bytes = 0;
        // A key without values is no entry of the list.
        let mut key_bytes = 0;
        for item in &self.0 {
            match item {
                Item::Key(key) => key_bytes = key.len(),
                Item::Value(value) => {
                    entries += 1;
                    bytes += value.len() + std::mem::take(&mut key_bytes);
                }
            }
        }
        let mut md = Metadata::with_capacity(entries, bytes);
        let mut new_key = None;
        for item in self.0 {
            match item {
                Item::Key(key) => new_key = Some(key),
                Item::Value(value) => match new_key.take() {
                    Some(key) => md.push(key, value),
                    None => md.push_again(value),
                },
            }
        }
        md
    }

    /// Where the keys stand that come again later, in order.
    fn replaced(&self) -> Vec<usize> {
        let mut keys = self
            .0
            .iter()
            .enumerate()
            .filter_map(|(place, item)| match item {
                Item::Key(key) => Some((*key, place)),
                Item::Value(_) => None,
            });
        let mut few = [("", 0); FEW_ENTRIES];
        let mut count = 0;
        for (slot, key) in few.iter_mut().zip(keys.by_ref()) {
            *slot = key;
            count += 1;
        }
        let few = &few[..count];

        let mut rest = keys.peekable();
        if rest.peek().is_none() {
            let comes_again =
                |(n, (key, _)): &(usize, &(&str, usize))| few[n + 1..].iter().any(|k| k.0 == *key);
            let replaced = few.iter().enumerate().filter(comes_again);
            return replaced.map(|(_, &(_, place))| place).collect();
        }
        let mut last = HashMap::new();
        let all = few.iter().copied().chain(rest);
        let mut replaced: Vec<usize> = all
            .filter_map(|(key, place)| last.insert(key, place))
            .collect();
        replaced.sort_unstable();
        replaced
    }

    /// Removes the entries whose keys stand in these places, which are in order.
    fn remove(&mut self, places: Vec<usize>) {
        let mut places = places.into_iter().peekable();
        let mut place = 0;
        let mut keep = true;
        self.0.retain(|item| {
            if matches!(item, Item::Key(_)) {
                keep = places.next_if_eq(&place).is_none();
            }
            place += 1;
            keep
        });
    }
}
