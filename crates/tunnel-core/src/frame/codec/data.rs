//! A fast path for frames that carry messages.
//!
//! Nearly all frames carry messages, and every known peer writes their fields in the order of their
//! numbers. The fast path encodes them into an array and decodes them without a loop over fields.
//! Frames with another order, repeated fields or unknown fields take the general path, and so do
//! compressed messages.

use std::ops::Range;

use super::super::framing::PREFIX_LEN;
use super::super::{FrameKindRef, FrameRef};
use super::wire::{nonempty_len, nonzero_len};

/// The keys of the fields: their number, and how they are encoded.
const STREAM_ID: u8 = 1 << 3;
const MESSAGE: u8 = 3 << 3 | 2;
const MORE_DATA: u8 = 4 << 3 | 2;
const SIZE: u8 = 1 << 3;
const DATA: u8 = 2 << 3 | 2;

/// Room for the prefix, five keys and the numbers behind them: an id of ten bytes, lengths and a
/// size of five each.
const ROOM: usize = PREFIX_LEN + 4 + 10 + 3 * 5;

/// The bytes before the payload of a frame, the prefix included.
pub(in super::super) struct Head {
    bytes: [u8; ROOM],
    len: usize,
}

impl Head {
    /// The head of a frame and its payload; `None` for a frame that carries no message or begins a
    /// compressed one, and for one that is too large for its prefix.
    pub(in super::super) fn of<'a>(frame: &FrameRef<'a>) -> Option<(Self, &'a [u8])> {
        let (size, data) = match frame.kind {
            FrameKindRef::Message {
                size,
                data,
                compressed: false,
            } => (Some(size), data),
            FrameKindRef::MoreData(data) => (None, data),
            _ => return None,
        };
        // The bytes before the payload are fewer than this.
        let len = u32::try_from(data.len() + ROOM).ok()? - ROOM as u32;
        let mut head = Self {
            bytes: [0; ROOM],
            len: PREFIX_LEN,
        };
        let id = frame.stream_id.value();
        if id != 0 {
            head.field(STREAM_ID, id as u64);
        }
        match size {
            None => head.field(MORE_DATA, len.into()),
            Some(size) => {
                let before = nonzero_len(size.into());
                let payload = nonempty_len(data);
                head.field(MESSAGE, (before + payload) as u64);
                if before > 0 {
                    head.field(SIZE, size.into());
                }
                if payload > 0 {
                    head.field(DATA, len.into());
                }
            }
        }
        let declared = head.len as u32 - PREFIX_LEN as u32 + len;
        head.bytes[1..PREFIX_LEN].copy_from_slice(&declared.to_be_bytes());
        Some((head, data))
    }

    pub(in super::super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn field(&mut self, key: u8, mut value: u64) {
        self.put(key);
        while value >= 0x80 {
            self.put(value as u8 | 0x80);
            value >>= 7;
        }
        self.put(value as u8);
    }

    fn put(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }
}

/// A frame that carries (a piece of) a message.
pub(super) struct DataFrame {
    pub(super) stream_id: i64,
    /// The size of the message, if it begins here.
    pub(super) begins: Option<u32>,
    /// Where in the frame its payload is.
    pub(super) data: Range<usize>,
}

/// Reads a frame if it carries a message and has the usual encoding. `None` does not mean that the
/// frame is broken.
pub(super) fn read(frame: &[u8]) -> Option<DataFrame> {
    let mut at = 0;
    let stream_id = field(frame, &mut at, STREAM_ID)? as i64;
    let begins = match *frame.get(at)? {
        MORE_DATA => None,
        MESSAGE => {
            let len = field(frame, &mut at, MESSAGE)?;
            if len != (frame.len() - at) as u64 {
                return None;
            }
            Some(u32::try_from(field(frame, &mut at, SIZE)?).ok()?)
        }
        _ => return None,
    };
    let key = if begins.is_some() { DATA } else { MORE_DATA };
    let len = field(frame, &mut at, key)?;
    (len == (frame.len() - at) as u64).then_some(DataFrame {
        stream_id,
        begins,
        data: at..frame.len(),
    })
}

/// Reads a key that is expected, and the number behind it.
#[inline]
fn field(frame: &[u8], at: &mut usize, key: u8) -> Option<u64> {
    if *frame.get(*at)? != key {
        return None;
    }
    let mut value = 0;
    // Nine groups of seven bits cannot overflow; longer numbers take the general path.
    for (i, &byte) in frame[*at + 1..].iter().take(9).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *at += i + 2;
            return Some(value);
        }
    }
    None
}
