//! The lists of a frame while it is decoded: metadata and the details of a status.
//!
//! They borrow from the frame. Entries that a later entry replaces are never copied, and the final
//! list has exactly the size it needs. Beyond a limit nothing is kept.

use bytes::{Bytes, BytesMut};

use super::wire::Reader;
use super::{DecodeError, MAX_DETAILS, MAX_ENTRIES};
use crate::{Metadata, StatusDetail};

/// Up to this many map entries are compared with each other. More entries are sorted.
const FEW_ENTRIES: usize = 16;

/// The key of an entry without a key: an empty part of an existing text.
///
/// The pointer of a plain `""` is not mapped. The C library compares with vector instructions, and
/// a vector load from an unmapped address takes about 100 ns even for zero bytes.
const NO_KEY: &str = "-".split_at(0).0;

/// The details of a status as far as they have been read: types and values.
#[derive(Default)]
pub(super) struct Details<'a> {
    /// At most [`MAX_DETAILS`].
    kept: Vec<(&'a str, &'a [u8])>,
    over_limit: bool,
}

impl<'a> Details<'a> {
    pub(super) fn read(&mut self, mut reader: Reader<'a>) -> Result<(), DecodeError> {
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
    pub(super) fn finish(self) -> Option<Vec<StatusDetail>> {
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
#[derive(Default)]
pub(super) struct Entries<'a> {
    /// At most one key and one value for each of [`MAX_ENTRIES`].
    items: Vec<Item<'a>>,
    over_limit: bool,
}

enum Item<'a> {
    Key(&'a str),
    /// A key that is repeated later. The key and its values are ignored.
    Replaced,
    Value(&'a str),
}

impl<'a> Entries<'a> {
    pub(super) fn read(&mut self, mut reader: Reader<'a>) -> Result<(), DecodeError> {
        if self.items.capacity() == 0 && !reader.is_empty() {
            // Most lists fit. Larger lists grow as they are read.
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
        // The key usually comes first, but need not.
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

    /// Beyond the limit nothing is kept, but everything is still read: a list that is too long ends
    /// its stream, and a broken list ends the tunnel.
    #[inline]
    fn push(&mut self, item: Item<'a>) {
        if self.items.len() < 2 * MAX_ENTRIES {
            self.items.push(item);
        } else {
            self.over_limit = true;
        }
    }

    /// The list. Of entries with equal keys only the last counts.
    pub(super) fn finish(mut self) -> Metadata {
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

    /// Marks the keys that are repeated later.
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
        // The keys are sorted and not hashed, so a peer cannot choose keys that make this slow.
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

/// The first bytes of a key as a number, which makes most comparisons fast.
fn beginning(key: &str) -> u64 {
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(key.as_bytes()) {
        *to = *from;
    }
    u64::from_be_bytes(bytes)
}

/// The key of the next value.
#[derive(Clone, Copy)]
enum Of<'a> {
    /// A key that is not in the list yet.
    New(&'a str),
    /// The key of the value before.
    Same,
    /// A key that does not count.
    Replaced,
}
