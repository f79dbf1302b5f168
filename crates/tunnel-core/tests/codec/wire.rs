//! Protobuf written by hand, with the mistakes that tests need.

pub(crate) fn key(number: u32, wire: u32) -> u64 {
    u64::from(number << 3 | wire)
}

/// A varint, `padding` bytes longer than necessary.
pub(crate) fn varint(mut value: u64, padding: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 || bytes.len() < padding {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

pub(crate) fn delimited(number: u32, value: &[u8]) -> Vec<u8> {
    let prefix = [varint(key(number, 2), 0), varint(value.len() as u64, 0)];
    [&prefix.concat(), value].concat()
}
