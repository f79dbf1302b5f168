//! The decoder: from bytes to a frame.
//!
//! The decoder walks over the message once. Fields that occur twice are merged
//! as protobuf says: of numbers and texts the last one counts, lists grow,
//! messages of one field merge, and another member of a `oneof` replaces the
//! first.

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};

use super::super::{CloseStream, Frame, FrameKind, NewStream, Settings};
use super::data;
use super::wire::{Field, Reader, WireType};
use super::{DecodeError, MAX_DETAILS, MAX_ENTRIES};
use crate::{Code, Metadata, Side, Status, StatusDetail};

/// Up to this many map entries, each key is compared with those after it;
/// beyond, they are sorted.
const FEW_ENTRIES: usize = 16;

/// The key of an entry that has none: an empty part of a text that exists.
///
/// The pointer of a plain `""` points nowhere, and the C library compares by vectors: loading nothing
/// from an address that is not mapped takes processors about 100 ns.
const NO_KEY: &str = "-".split_at(0).0;

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
    Close(Status, Details<'a>, Entries<'a>),
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

/// The details of a status as far as they have been read: types and values.
#[derive(Default)]
struct Details<'a> {
    /// At most [`MAX_DETAILS`].
    kept: Vec<(&'a str, &'a [u8])>,
    over_limit: bool,
}

impl<'a> Details<'a> {
    fn read(&mut self, mut reader: Reader<'a>) -> Result<(), DecodeError> {
        let mut type_url = "";
        let mut value: &[u8] = &[];
        while let Some(field) = reader.field()? {
            match field.number {
                1 => type_url = reader.text(field)?,
                2 => value = reader.delimited(field)?.bytes(),
                _ => reader.skip(field)?,
            }
        }
        if self.kept.len() < MAX_DETAILS {
            self.kept.push((type_url, value));
        } else {
            self.over_limit = true;
        }
        Ok(())
    }

    /// The details; `None` if they are more than [`MAX_DETAILS`].
    fn finish(self) -> Option<Vec<StatusDetail>> {
        if self.over_limit {
            return None;
        }
        // Errors live long and are small beside the buffer they came in, so their
        // values are copied: all into one allocation.
        let bytes = self.kept.iter().map(|(_, value)| value.len()).sum();
        let mut values = BytesMut::with_capacity(bytes);
        let detail = |(type_url, value): (&str, &[u8])| StatusDetail {
            type_url: type_url.to_owned(),
            value: match value {
                [] => Bytes::new(),
                value => {
                    values.extend_from_slice(value);
                    values.split().freeze()
                }
            },
        };
        Some(self.kept.into_iter().map(detail).collect())
    }
}

/// Metadata as far as it has been read: the map entries of the wire, in order,
/// each as its key and then its values.
///
/// Borrowed, so that what a later entry replaces was never copied and the list
/// made in the end has exactly the size it needs.
#[derive(Default)]
struct Entries<'a> {
    /// At most a key and a value for each of [`MAX_ENTRIES`].
    items: Vec<Item<'a>>,
    over_limit: bool,
}

enum Item<'a> {
    Key(&'a str),
    /// A key that comes again later. It counts for nothing, nor do its values.
    Replaced,
    Value(&'a str),
}

impl<'a> Entries<'a> {
    fn read(&mut self, mut reader: Reader<'a>) -> Result<(), DecodeError> {
        if self.items.capacity() == 0 && !reader.is_empty() {
            // Most lists fit; the others grow as they are read.
            self.items.reserve(FEW_ENTRIES);
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
        let place = self.items.len();
        self.push(Item::Key(NO_KEY));
        while let Some(field) = reader.field()? {
            match field.number {
                1 => {
                    let key = reader.text(field)?;
                    if let Some(item) = self.items.get_mut(place) {
                        *item = Item::Key(key);
                    }
                }
                2 => self.read_values(reader.delimited(field)?)?,
                _ => reader.skip(field)?,
            }
        }
        Ok(())
    }

    fn read_values(&mut self, mut reader: Reader<'a>) -> Result<(), DecodeError> {
        while let Some(field) = reader.field()? {
            match field.number {
                1 => self.push(Item::Value(reader.text(field)?)),
                _ => reader.skip(field)?,
            }
        }
        Ok(())
    }

    /// Beyond the limit nothing is kept, but all is still read: a list that is
    /// too long ends its stream, one that is broken ends the tunnel.
    #[inline]
    fn push(&mut self, item: Item<'a>) {
        if self.items.len() < 2 * MAX_ENTRIES {
            self.items.push(item);
        } else {
            self.over_limit = true;
        }
    }

    /// The list. Of entries with equal keys only the last counts.
    fn finish(mut self) -> Metadata {
        if self.over_limit {
            return Metadata::over_limit();
        }
        if self.items.is_empty() {
            return Metadata::new();
        }
        self.mark_replaced();

        let mut entries = 0;
        let mut bytes = 0;
        // A key without values is no entry of the list.
        let mut key = None;
        for item in &self.items {
            match item {
                Item::Key(text) => key = Some(text.len()),
                Item::Replaced => key = None,
                Item::Value(value) => {
                    if let Some(len) = &mut key {
                        entries += 1;
                        bytes += value.len() + std::mem::take(len);
                    }
                }
            }
        }
        let mut md = Metadata::with_capacity(entries, bytes);
        let mut of = Of::Replaced;
        for item in self.items {
            match (item, of) {
                (Item::Key(key), _) => of = Of::New(key),
                (Item::Replaced, _) => of = Of::Replaced,
                (Item::Value(value), Of::New(key)) => {
                    md.push(key, value);
                    of = Of::Same;
                }
                (Item::Value(value), Of::Same) => md.push_again(value),
                (Item::Value(_), Of::Replaced) => {}
            }
        }
        md
    }

    /// Marks the keys that come again later.
    fn mark_replaced(&mut self) {
        let mut keys = self
            .items
            .iter()
            .enumerate()
            .filter_map(|(place, item)| match item {
                Item::Key(key) => Some((*key, place)),
                _ => None,
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
            for (n, (key, place)) in few.iter().enumerate() {
                if few[n + 1..].iter().any(|(later, _)| later == key) {
                    self.items[*place] = Item::Replaced;
                }
            }
            return;
        }
        let mut all = Vec::new();
        let mut replaced = Vec::new();
        let mut before = None;
        for (key, place) in few.iter().copied().chain(rest) {
            if let Some((same, earlier)) = before.replace((key, place))
                && same == key
            {
                replaced.push(earlier);
                all.pop();
            }
            all.push((beginning(key), place));
        }
        // Sorted and not hashed: nobody can choose keys that make this slow.
        let key = |place: usize| match self.items[place] {
            Item::Key(key) => key,
            Item::Replaced | Item::Value(_) => "",
        };
        all.sort_unstable_by(|(a, place), (b, other)| {
            let whole = || (key(*place), place).cmp(&(key(*other), other));
            a.cmp(b).then_with(whole)
        });
        for pair in all.windows(2) {
            let [(a, place), (b, later)] = [pair[0], pair[1]];
            if a == b && key(place) == key(later) {
                replaced.push(place);
            }
        }
        for place in replaced {
            self.items[place] = Item::Replaced;
        }
    }
}

/// The first bytes of a key as a number, which tells most keys apart sooner.
fn beginning(key: &str) -> u64 {
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(key.as_bytes()) {
        *to = *from;
    }
    u64::from_be_bytes(bytes)
}

/// Whose value comes next.
#[derive(Clone, Copy)]
enum Of<'a> {
    /// A key that is not in the list yet.
    New(&'a str),
    /// The key of the value before.
    Same,
    /// A key that does not count.
    Replaced,
}
