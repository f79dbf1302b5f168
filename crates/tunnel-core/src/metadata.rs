//! Call metadata as the wire carries it: a flat, ordered list of keys and values.
//!
//! Invariants: entries keep the order in which they were pushed; keys and values are valid UTF-8
//! (the wire's type is `string`); nothing is lower-cased, merged or validated here. The binding to
//! an application protocol decides what a key means and how bytes that are not text are encoded.

use std::fmt;

/// The overhead of one entry in [`Metadata::size`], in bytes.
///
/// The number is HTTP/2's own for a header list (RFC 9113, section 10.5.1), so
/// that limits mean the same on both sides of a tunnel.
pub const ENTRY_OVERHEAD: usize = 32;

/// A flat, ordered list of metadata keys and values.
///
/// All text lives in one buffer, so a list costs two allocations however many
/// entries it has. Neighbours with the same key share one copy of it, so a list
/// never takes more memory than its frame had. [`size`](Self::size) counts the
/// key for each entry, as an HTTP/2 header list would.
///
/// ```
/// use tunnel_core::Metadata;
///
/// let mut md = Metadata::new();
/// md.push("tenant", "blue");
/// md.push("tag", "a");
/// md.push("tag", "b");
/// assert_eq!(md.get("tag"), Some("a"));
/// assert_eq!(md.iter().count(), 3);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Keys and values in order, a key only where it differs from the one
    /// before. So equal lists have equal text and marks, and `Eq` can be derived.
    text: String,
    entries: Vec<Marks>,
    /// The text of all entries, repeated keys included, in bytes;
    /// [`OVER_LIMIT`] for a list that was not kept.
    counted: usize,
}

/// More text than any list has.
const OVER_LIMIT: usize = usize::MAX;

/// The position of an entry in the text. Its value begins after its own key or after the value
/// before, whichever is later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Marks {
    key_start: usize,
    key_end: usize,
    value_end: usize,
}

impl Metadata {
    /// An empty list. Allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty list with room for `entries` entries and `bytes` bytes of text.
    pub fn with_capacity(entries: usize, bytes: usize) -> Self {
        Self {
            text: String::with_capacity(bytes),
            entries: Vec::with_capacity(entries),
            counted: 0,
        }
    }

    /// The list that represents a received list too long to be kept.
    pub(crate) fn over_limit() -> Self {
        Self {
            counted: OVER_LIMIT,
            ..Self::default()
        }
    }

    /// Whether this represents a received list that had more than
    /// [`MAX_ENTRIES`](crate::frame::codec::MAX_ENTRIES) and was not kept.
    ///
    /// It has no entries, and its [`size`](Self::size) is `usize::MAX`: above
    /// every limit.
    pub fn is_over_limit(&self) -> bool {
        self.counted == OVER_LIMIT
    }

    /// Appends one entry.
    pub fn push(&mut self, key: &str, value: &str) {
        if self.last_key() == Some(key) {
            self.push_again(value);
            return;
        }
        let key_start = self.text.len();
        self.text.push_str(key);
        self.push_marked(key_start, self.text.len(), value);
    }

    /// Appends another value of the last entry's key without comparing keys. Without an entry the
    /// key is empty.
    pub(crate) fn push_again(&mut self, value: &str) {
        let (key_start, key_end) = self
            .entries
            .last()
            .map_or((0, 0), |last| (last.key_start, last.key_end));
        self.push_marked(key_start, key_end, value);
    }

    fn push_marked(&mut self, key_start: usize, key_end: usize, value: &str) {
        self.text.push_str(value);
        self.counted = self
            .counted
            .saturating_add(key_end - key_start)
            .saturating_add(value.len());
        self.entries.push(Marks {
            key_start,
            key_end,
            value_end: self.text.len(),
        });
    }

    /// The runs of neighbours with the same key, in order.
    pub(crate) fn runs(&self) -> Runs<'_> {
        Runs {
            text: self.text.as_bytes(),
            rest: &self.entries,
        }
    }

    fn last_key(&self) -> Option<&str> {
        let last = self.entries.last()?;
        Some(&self.text[last.key_start..last.key_end])
    }

    /// How many entries there are; a key with two values counts twice.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The size that limits are checked against, in bytes: the text of all keys
    /// and values plus [`ENTRY_OVERHEAD`] for each entry. A key counts once for
    /// each of its values.
    pub fn size(&self) -> usize {
        self.entries
            .len()
            .saturating_mul(ENTRY_OVERHEAD)
            .saturating_add(self.counted)
    }

    /// The first value of a key, compared exactly.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// All entries, in order.
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            text: &self.text,
            entries: self.entries.iter(),
            at: 0,
        }
    }
}

/// Keys and the lengths of their values. Values may be credentials, and debug
/// output ends up in logs.
impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(k, v)| (k, v.len())))
            .finish()
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(iter: I) -> Self {
        let mut md = Self::new();
        md.extend(iter);
        md
    }
}

impl<K: AsRef<str>, V: AsRef<str>> Extend<(K, V)> for Metadata {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, iter: I) {
        for (key, value) in iter {
            self.push(key.as_ref(), value.as_ref());
        }
    }
}

impl<'a> IntoIterator for &'a Metadata {
    type Item = (&'a str, &'a str);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The entries of a [`Metadata`], in order.
#[derive(Clone)]
pub struct Iter<'a> {
    text: &'a str,
    entries: std::slice::Iter<'a, Marks>,
    /// The end of the previous value.
    at: usize,
}

impl fmt::Debug for Iter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter")
            .field("left", &self.entries.len())
            .finish_non_exhaustive()
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let marks = self.entries.next()?;
        let value_start = self.at.max(marks.key_end);
        self.at = marks.value_end;
        Some((
            &self.text[marks.key_start..marks.key_end],
            &self.text[value_start..marks.value_end],
        ))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.entries.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

/// The runs of a [`Metadata`], in order.
#[derive(Clone, Debug)]
pub(crate) struct Runs<'a> {
    text: &'a [u8],
    rest: &'a [Marks],
}

/// Neighbours with the same key, as bytes: the encoder needs their lengths more
/// often than their text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    text: &'a [u8],
    /// Never empty, and all of the same key.
    entries: &'a [Marks],
}

impl<'a> Iterator for Runs<'a> {
    type Item = Run<'a>;

    fn next(&mut self) -> Option<Run<'a>> {
        let first = self.rest.first()?;
        // A run stores its key once, so two runs have two positions.
        let key_of = |m: &Marks| (m.key_start, m.key_end);
        let others = self.rest[1..]
            .iter()
            .take_while(|m| key_of(m) == key_of(first));
        let (entries, rest) = self.rest.split_at(1 + others.count());
        let run = Run {
            text: self.text,
            entries,
        };
        self.rest = rest;
        Some(run)
    }
}

impl<'a> Run<'a> {
    /// The key.
    pub(crate) fn key(&self) -> &'a [u8] {
        &self.text[self.entries[0].key_start..self.entries[0].key_end]
    }

    /// The values, in order; at least one.
    pub(crate) fn values(self) -> impl Iterator<Item = &'a [u8]> {
        // The key lies before the first value.
        let mut at = 0;
        self.entries.iter().map(move |marks| {
            let start = at.max(marks.key_end);
            at = marks.value_end;
            &self.text[start..at]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_in_the_order_pushed() {
        let entries = [("b", "1"), ("a", ""), ("b", "2"), ("", "x")];
        let md: Metadata = entries.into_iter().collect();
        assert_eq!(md.iter().collect::<Vec<_>>(), entries);
        assert_eq!(md.len(), 4);
        assert_eq!(md.size(), 6 + 4 * ENTRY_OVERHEAD);
        assert_eq!(md.get("b"), Some("1"));
        assert_eq!(md.get("B"), None);
    }

    #[test]
    fn a_repeated_key_is_held_once_and_counted_each_time() {
        let key = "k".repeat(1000);
        let mut md = Metadata::new();
        for _ in 0..500 {
            md.push(&key, "");
        }
        md.push("", "");
        md.push("", "v");
        assert_eq!(md.text.len(), 1001);
        assert_eq!(md.size(), 500 * 1000 + 1 + 502 * ENTRY_OVERHEAD);
        assert_eq!(
            md.iter().filter(|(k, v)| *k == key && v.is_empty()).count(),
            500
        );
        assert_eq!(
            md.iter().skip(500).collect::<Vec<_>>(),
            [("", ""), ("", "v")]
        );
    }

    #[test]
    fn runs_are_the_neighbours_of_equal_key() {
        let entries = [
            ("a", "1"),
            ("a", ""),
            ("", ""),
            ("", "2"),
            ("b", ""),
            ("a", "3"),
        ];
        let md: Metadata = entries.into_iter().collect();
        let runs: Vec<(&[u8], Vec<&[u8]>)> =
            md.runs().map(|r| (r.key(), r.values().collect())).collect();
        assert_eq!(
            runs,
            [
                (&b"a"[..], vec![&b"1"[..], b""]),
                (b"", vec![b"", b"2"]),
                (b"b", vec![b""]),
                (b"a", vec![b"3"]),
            ]
        );
    }

    #[test]
    fn lists_are_equal_exactly_when_their_entries_are() {
        let list = |entries: &[(&str, &str)]| entries.iter().copied().collect::<Metadata>();
        let mut again = list(&[("a", "1")]);
        again.push_again("2");
        assert_eq!(again, list(&[("a", "1"), ("a", "2")]));
        assert_ne!(
            list(&[("a", "b"), ("", "")]),
            list(&[("a", "b"), ("a", "")])
        );
        assert_ne!(list(&[("ab", "")]), list(&[("a", "b")]));
        assert_ne!(
            list(&[("a", "bc"), ("d", "")]),
            list(&[("a", "b"), ("c", "d")])
        );

        let mut first = Metadata::new();
        first.push_again("x");
        assert_eq!(first, list(&[("", "x")]));
    }

    #[test]
    fn debug_output_never_shows_a_value() {
        let md: Metadata = [("authorization", "secret")].into_iter().collect();
        let shown = format!("{md:?}");
        assert!(shown.contains("authorization"));
        assert!(!shown.contains("secret"));
    }
}
