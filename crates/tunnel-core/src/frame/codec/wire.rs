//! The elements of protobuf: varints, keys, length-delimited fields.

use bytes::{BufMut, BytesMut};

use super::DecodeError;

/// How deep a message may nest, itself included. The limit of prost and of the
/// C++ implementation.
const MAX_DEPTH: u32 = 100;

/// The length of the longest varint, in bytes.
const MAX_VARINT: usize = 10;

/// How the value of a field is encoded: the low three bits of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum WireType {
    Varint = 0,
    Fixed64 = 1,
    Delimited = 2,
    GroupStart = 3,
    GroupEnd = 4,
    Fixed32 = 5,
}

/// The key of a field: its number, and how its value is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) wire: WireType,
}

impl Field {
    fn expect(self, wire: WireType) -> Result<(), DecodeError> {
        if self.wire == wire {
            Ok(())
        } else {
            Err(DecodeError::WireType {
                field: self.number,
                wire_type: self.wire as u8,
            })
        }
    }
}

/// The unread part of one message.
///
/// Invariant: `rest` is the part of the frame that begins at byte `offset`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    offset: usize,
    /// How many levels may still nest inside, this one included.
    depth: u32,
}

impl<'a> Reader<'a> {
    /// Reads a whole frame.
    pub(super) fn new(frame: &'a [u8]) -> Self {
        Self {
            rest: frame,
            offset: 0,
            depth: MAX_DEPTH,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The unread bytes.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.rest
    }

    /// The unread bytes, as a range of the frame.
    pub(super) fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.rest.len()
    }

    /// The key of the next field; `None` at the end of the message.
    #[inline]
    pub(super) fn field(&mut self) -> Result<Option<Field>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = u32::try_from(self.varint()?).map_err(|_| DecodeError::FieldNumber)?;
        let number = key >> 3;
        if number == 0 {
            return Err(DecodeError::FieldNumber);
        }
        let wire = match key & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Delimited,
            3 => WireType::GroupStart,
            4 => WireType::GroupEnd,
            5 => WireType::Fixed32,
            other => {
                return Err(DecodeError::WireType {
                    field: number,
                    wire_type: other as u8,
                });
            }
        };
        Ok(Some(Field { number, wire }))
    }

    /// The value of an integer field, all 64 bits. Narrower types take its low bits, as in
    /// protobuf.
    #[inline]
    pub(super) fn integer(&mut self, field: Field) -> Result<u64, DecodeError> {
        field.expect(WireType::Varint)?;
        self.varint()
    }

    /// The value of a field that declares its length: bytes, text, a list of
    /// numbers or a message, one level down.
    #[inline]
    pub(super) fn delimited(&mut self, field: Field) -> Result<Reader<'a>, DecodeError> {
        field.expect(WireType::Delimited)?;
        let length = self.length()?;
        let offset = self.offset;
        Ok(Reader {
            rest: self.take(length),
            offset,
            // The messages of this protocol nest five deep.
            depth: self.depth.saturating_sub(1),
        })
    }

    /// The value of a text field.
    #[inline]
    pub(super) fn text(&mut self, field: Field) -> Result<&'a str, DecodeError> {
        let bytes = self.delimited(field)?.rest;
        std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8 {
            field: field.number,
        })
    }

    /// Skips the value of an unknown field.
    pub(super) fn skip(&mut self, field: Field) -> Result<(), DecodeError> {
        self.skip_within(field, self.depth)
    }

    fn skip_within(&mut self, field: Field, depth: u32) -> Result<(), DecodeError> {
        if depth == 0 {
            return Err(DecodeError::Depth);
        }
        let length = match field.wire {
            WireType::Varint => return self.varint().map(drop),
            WireType::Fixed64 => 8,
            WireType::Fixed32 => 4,
            WireType::Delimited => self.length()?,
            WireType::GroupStart => loop {
                let inner = self.field()?.ok_or(DecodeError::Truncated)?;
                if inner.wire != WireType::GroupEnd {
                    self.skip_within(inner, depth - 1)?;
                } else if inner.number == field.number {
                    return Ok(());
                } else {
                    return Err(DecodeError::Group);
                }
            },
            WireType::GroupEnd => return Err(DecodeError::Group),
        };
        if length > self.rest.len() {
            return Err(DecodeError::Truncated);
        }
        self.take(length);
        Ok(())
    }

    /// Reads a declared length and checks that the message has as many bytes left.
    #[inline]
    fn length(&mut self) -> Result<usize, DecodeError> {
        let length = self.varint()?;
        match usize::try_from(length) {
            Ok(length) if length <= self.rest.len() => Ok(length),
            _ => Err(DecodeError::Truncated),
        }
    }

    /// The next `length` bytes. The caller has checked that the message has them.
    #[inline]
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        self.offset += length;
        taken
    }

    /// The next integer of a message or of a packed list.
    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, DecodeError> {
        if let Some(&byte) = self.rest.first()
            && byte < 0x80
        {
            self.take(1);
            return Ok(u64::from(byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for (i, &byte) in self.rest.iter().take(MAX_VARINT).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                // Of the tenth byte only the lowest bit fits.
                if i == MAX_VARINT - 1 && byte > 1 {
                    return Err(DecodeError::Varint);
                }
                self.take(i + 1);
                return Ok(value);
            }
        }
        if self.rest.len() < MAX_VARINT {
            Err(DecodeError::Truncated)
        } else {
            Err(DecodeError::Varint)
        }
    }
}

/// The encoded size of a varint, in bytes.
#[inline]
pub(super) const fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// The encoded size of a field's key, in bytes. All field numbers of this protocol are below 16.
pub(super) const KEY_LEN: usize = 1;

/// The encoded size of a field with a value of `len` bytes, in bytes.
#[inline]
pub(super) const fn delimited_len(len: usize) -> usize {
    KEY_LEN + varint_len(len as u64) + len
}

/// The encoded size of an integer field, in bytes.
#[inline]
pub(super) const fn integer_len(value: u64) -> usize {
    KEY_LEN + varint_len(value)
}

/// The encoded size of an integer field that is left out when it is zero, in bytes.
#[inline]
pub(super) const fn nonzero_len(value: u64) -> usize {
    if value == 0 { 0 } else { integer_len(value) }
}

/// The encoded size of a field of bytes or text that is left out when it is empty, in bytes.
#[inline]
pub(super) const fn nonempty_len(bytes: &[u8]) -> usize {
    if bytes.is_empty() {
        0
    } else {
        delimited_len(bytes.len())
    }
}

/// An `int32` as the 64 bits that its varint has: negative ones are extended.
#[inline]
pub(super) const fn int32(value: i32) -> u64 {
    value as i64 as u64
}

#[inline]
pub(super) fn put_varint(buf: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        buf.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    buf.put_u8(value as u8);
}

/// Writes the key of a field; `number` is below 16.
#[inline]
fn put_key(buf: &mut BytesMut, number: u32, wire: WireType) {
    debug_assert!((1..16).contains(&number));
    buf.put_u8((number as u8) << 3 | wire as u8);
}

#[inline]
pub(super) fn put_integer(buf: &mut BytesMut, number: u32, value: u64) {
    put_key(buf, number, WireType::Varint);
    put_varint(buf, value);
}

#[inline]
pub(super) fn put_nonzero(buf: &mut BytesMut, number: u32, value: u64) {
    if value != 0 {
        put_integer(buf, number, value);
    }
}

/// Begins a field whose value will be `len` bytes.
#[inline]
pub(super) fn put_length(buf: &mut BytesMut, number: u32, len: usize) {
    put_key(buf, number, WireType::Delimited);
    put_varint(buf, len as u64);
}

#[inline]
pub(super) fn put_bytes(buf: &mut BytesMut, number: u32, bytes: &[u8]) {
    put_length(buf, number, bytes.len());
    buf.put_slice(bytes);
}

#[inline]
pub(super) fn put_nonempty(buf: &mut BytesMut, number: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_bytes(buf, number, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varint_has_the_length_that_was_computed_and_comes_back() {
        let edges = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        for value in edges.chain([u64::MAX]) {
            let mut buf = BytesMut::new();
            put_varint(&mut buf, value);
            assert_eq!(buf.len(), varint_len(value), "{value}");

            let mut reader = Reader::new(&buf);
            assert_eq!(reader.varint(), Ok(value));
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn a_varint_beyond_64_bits_is_refused_and_a_padded_one_is_not() {
        let read = |bytes: &[u8]| Reader::new(bytes).varint();
        let long = |last: &[u8]| [&[0xff; 9], last].concat();
        assert_eq!(read(&long(&[0x01])), Ok(u64::MAX));
        assert_eq!(read(&long(&[0x02])), Err(DecodeError::Varint));
        assert_eq!(read(&long(&[0x81, 0x00])), Err(DecodeError::Varint));
        assert_eq!(read(&long(&[])), Err(DecodeError::Truncated));
        assert_eq!(read(&[]), Err(DecodeError::Truncated));
        assert_eq!(read(&[0x85, 0x80, 0x00]), Ok(5));
    }

    #[test]
    fn groups_are_skipped_down_to_the_hundredth_level() {
        let nested = |levels: usize| [vec![0x7b; levels], vec![0x7c; levels]].concat();
        let skip = |bytes: &[u8]| {
            let mut reader = Reader::new(bytes);
            let field = reader.field()?.expect("a field");
            reader.skip(field)?;
            assert!(reader.is_empty());
            Ok(())
        };
        assert_eq!(skip(&nested(1)), Ok(()));
        assert_eq!(skip(&nested(100)), Ok(()));
        assert_eq!(skip(&nested(101)), Err(DecodeError::Depth));
        assert_eq!(skip(&nested(100_000)), Err(DecodeError::Depth));
        assert_eq!(skip(&[0x7b]), Err(DecodeError::Truncated));
        assert_eq!(skip(&[0x7b, 0x74]), Err(DecodeError::Group));
        assert_eq!(skip(&[0x7c]), Err(DecodeError::Group));
    }
}
