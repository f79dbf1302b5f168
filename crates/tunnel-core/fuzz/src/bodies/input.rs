//! Reads the input of a fuzz target piece by piece.

use bytes::Bytes;

/// The rest of an input. After its end come zeros.
#[derive(Clone, Debug)]
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Up to `len` bytes: fewer where the input ends.
    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// A number below `end`, which is above zero.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        if end <= 256 {
            usize::from(self.u8()) % end
        } else {
            usize::from(self.u16()) % end
        }
    }

    /// A number of 32 bits: a small one in one byte, others after a byte of 255.
    pub(crate) fn number(&mut self) -> u32 {
        match self.u8() {
            255 => self.u32(),
            small => small.into(),
        }
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Bytes after a length of one byte.
    pub(crate) fn short(&mut self) -> &'a [u8] {
        let len = self.u8().into();
        self.take(len)
    }

    /// Text after a length of one byte. Invalid UTF-8 is replaced.
    pub(crate) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.short()).into_owned()
    }

    /// Places to cut a stream: their number in the lowest five bits of a byte, then two bytes
    /// each.
    pub(crate) fn cuts(&mut self) -> Vec<u16> {
        let count = self.u8() % 32;
        (0..count).map(|_| self.u16()).collect()
    }
}

/// Cuts a stream into pieces that own their memory. Equal places make empty pieces.
pub(crate) fn cut(stream: &[u8], cuts: &[u16]) -> Vec<Bytes> {
    let mut places: Vec<_> = cuts
        .iter()
        .map(|&at| usize::from(at) % (stream.len() + 1))
        .collect();
    places.sort_unstable();
    places.push(stream.len());
    let mut start = 0;
    let pieces = places.into_iter().map(|end| {
        let piece = Bytes::copy_from_slice(&stream[start..end]);
        start = end;
        piece
    });
    pieces.collect()
}
