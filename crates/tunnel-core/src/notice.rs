//! Notices: what an end tells the other about tunnels to come.

use std::fmt::Write as _;
use std::time::Duration;

use crate::frame::MAX_CHUNK_SIZE;

/// The most siblings that are read from a notice.
const MAX_SIBLINGS: usize = 16;

const RETURN: &str = "return-ms";
const GRACE: &str = "grace-ms";
const SIBLING: &str = "sibling";

/// What a gateway tells the end that dialled it about tunnels to come: how to return when this one is lost, and
/// where else to go. [`Connection::tell`](crate::Connection::tell) sends it to a peer that understands it.
///
/// Each field is optional. A later notice replaces the fields that it has.
///
/// On the wire it is one whole message on stream -1, of at most 16,384 bytes of text, a line for each value:
///
/// ```text
/// return-ms: 20000
/// grace-ms: 5000
/// sibling: https://gateway-2.example:443
/// ```
///
/// Lines with other names are ignored. At most 16 siblings are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notice {
    /// Over how long the peers that lose their tunnels to this end at the same time should spread their return.
    /// Milliseconds on the wire.
    pub return_spread: Option<Duration>,
    /// With a drain notice: the time within which the peer should open its next tunnel. Milliseconds on the wire.
    pub grace: Option<Duration>,
    /// With a drain notice: the addresses of gateways that serve the same callers, as URIs. Not checked.
    pub siblings: Vec<String>,
}

impl Notice {
    /// An empty notice.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over the fields that a later notice has.
    pub fn merge(&mut self, later: Self) {
        self.return_spread = later.return_spread.or(self.return_spread);
        self.grace = later.grace.or(self.grace);
        if !later.siblings.is_empty() {
            self.siblings = later.siblings;
        }
    }

    /// The text of the notice. Siblings that do not fit, or are not one line, are left out.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        for (name, time) in [(RETURN, self.return_spread), (GRACE, self.grace)] {
            if let Some(time) = time {
                let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                // Cannot fail: it writes to a string.
                let _ = writeln!(text, "{name}: {millis}");
            }
        }
        let one_line = |sibling: &&String| !sibling.contains(['\n', '\r']);
        for sibling in self.siblings.iter().filter(one_line).take(MAX_SIBLINGS) {
            if text.len() + SIBLING.len() + sibling.len() + 3 <= MAX_CHUNK_SIZE {
                let _ = writeln!(text, "{SIBLING}: {sibling}");
            }
        }
        text
    }

    /// Reads a notice; `None` if the bytes are not text with a value. A number that is not one is ignored.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut notice = Self::new();
        let lines = std::str::from_utf8(bytes).ok()?.lines();
        let mut values = lines.filter_map(|line| line.split_once(": ")).peekable();
        values.peek()?;
        for (name, value) in values {
            match name {
                RETURN => notice.return_spread = millis(value).or(notice.return_spread),
                GRACE => notice.grace = millis(value).or(notice.grace),
                SIBLING if notice.siblings.len() < MAX_SIBLINGS => {
                    notice.siblings.push(value.to_owned());
                }
                _ => {}
            }
        }
        Some(notice)
    }
}

fn millis(value: &str) -> Option<Duration> {
    value.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_read_as_it_was_written() {
        let notice = Notice {
            return_spread: Some(Duration::from_secs(20)),
            grace: Some(Duration::ZERO),
            siblings: vec!["https://b:443".into(), "https://c".into()],
        };
        assert_eq!(Notice::decode(notice.encode().as_bytes()), Some(notice));
    }

    #[test]
    fn what_a_notice_does_not_know_or_cannot_read_is_ignored() {
        let text = "later: 1\nreturn-ms: 7\nreturn-ms: -1\ngrace-ms: soon\nsibling\n\n";
        let notice = Notice::decode(text.as_bytes()).expect("text");
        let wanted = Notice {
            return_spread: Some(Duration::from_millis(7)),
            ..Notice::new()
        };
        assert_eq!(notice, wanted);
        for other in [b"\xff".as_slice(), b"", b"x"] {
            assert_eq!(Notice::decode(other), None);
        }
    }

    #[test]
    fn siblings_are_limited_in_number_in_size_and_to_one_line() {
        let mut notice = Notice::new();
        notice.siblings = vec!["a\nreturn-ms: 1".into(), "x".repeat(MAX_CHUNK_SIZE)];
        notice.siblings.extend(vec!["https://b".into(); 99]);
        let text = notice.encode();
        assert!(text.len() <= MAX_CHUNK_SIZE);
        let read = Notice::decode(text.as_bytes()).expect("text");
        assert_eq!(read.return_spread, None);
        assert_eq!(read.siblings, vec!["https://b"; MAX_SIBLINGS - 1]);
        let many = "sibling: https://b\n".repeat(99);
        let read = Notice::decode(many.as_bytes()).expect("text");
        assert_eq!(read.siblings.len(), MAX_SIBLINGS);
    }
}
