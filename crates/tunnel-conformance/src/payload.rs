//! Payloads that the receiver can reproduce and check.

use bytes::Bytes;
use prost::Message;
use tonic::Code;

use crate::proto::{Received, Request, Response};

/// tonic's default limit for one decoded message.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// The period of the pattern, in bytes. It is a prime, so that the chunks of a message differ and
/// lost, doubled or swapped chunks are detected.
const PERIOD: usize = 4093;

/// `size` bytes that are unique to this seed.
pub fn pattern(seed: u64, size: usize) -> Bytes {
    let mut block = Vec::with_capacity(PERIOD + 8);
    let mut state = seed;
    while block.len() < PERIOD.min(size) {
        block.extend_from_slice(&split_mix(&mut state).to_le_bytes());
    }
    block.truncate(PERIOD.min(size));
    let mut payload = Vec::with_capacity(size);
    while payload.len() < size {
        let rest = (size - payload.len()).min(block.len());
        payload.extend_from_slice(&block[..rest]);
    }
    payload.into()
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Panics unless `payload` is exactly `pattern(seed, size)`. The panic names the first difference
/// instead of printing the payload.
#[track_caller]
pub fn assert_pattern(payload: &[u8], seed: u64, size: usize) {
    assert_eq!(payload.len(), size, "length of payload {seed}");
    let expected = pattern(seed, size);
    if payload != expected {
        let at = payload.iter().zip(&expected).position(|(a, b)| a != b);
        panic!("payload {seed} of {size} bytes is wrong from byte {at:?} on");
    }
}

/// A request with the pattern of `seed`.
pub fn request(seed: u64, size: usize) -> Request {
    Request {
        payload: pattern(seed, size),
    }
}

/// Requests with the patterns of `seed`, `seed + 1` and so on.
pub fn requests(seed: u64, count: u64, size: usize) -> Vec<Request> {
    (seed..seed + count).map(|s| request(s, size)).collect()
}

/// The payload size for a message of exactly `encoded` bytes, if there is one.
///
/// There is none for one byte, and for a few sizes at which the encoding of the length grows.
pub fn payload_size_for(encoded: usize) -> Option<usize> {
    (encoded.saturating_sub(6)..=encoded).find(|&size| {
        let envelope = match size {
            0 => 0,
            _ => 1 + prost::length_delimiter_len(size),
        };
        envelope + size == encoded
    })
}

/// Panics unless the message is `encoded` bytes long on the wire.
#[track_caller]
pub fn assert_encoded(message: &impl Message, encoded: usize) {
    assert_eq!(message.encoded_len(), encoded, "encoded length");
}

/// Status details in the only form that every implementation passes on: a `google.rpc.Status` with
/// the code and message of the failure.
pub fn details(code: Code, message: &str) -> Bytes {
    let detail = prost_types::Any {
        type_url: "type.example/any".to_owned(),
        value: vec![0, 127, 255],
    };
    let status = tunnel_proto::google::rpc::Status {
        code: code.into(),
        message: message.to_owned(),
        details: vec![detail],
    };
    status.encode_to_vec().into()
}

/// The summary that a handler sends after it has received these messages.
pub fn received<'a>(messages: impl IntoIterator<Item = &'a Request>) -> Received {
    let mut tally = Received::empty();
    for message in messages {
        tally.add(message);
    }
    tally
}

impl Received {
    /// The summary of no messages.
    pub fn empty() -> Self {
        Self {
            messages: 0,
            bytes: 0,
            digest: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// Adds a message.
    pub fn add(&mut self, message: &Request) {
        self.messages += 1;
        self.bytes += message.payload.len() as u64;
        let length = (message.payload.len() as u64).to_le_bytes();
        for bytes in [&message.payload[..], &length] {
            for &byte in bytes {
                self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
}

/// Panics unless the messages are those of a `send` step with these arguments.
#[track_caller]
pub fn assert_sent(messages: &[Response], count: u64, size: usize, seed: u64) {
    assert_eq!(messages.len() as u64, count, "number of responses");
    for (message, seed) in messages.iter().zip(seed..) {
        assert_pattern(&message.payload, seed, size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_found_for_every_interesting_encoded_size() {
        for encoded in [0, 3, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537] {
            let size = payload_size_for(encoded).expect("there is such a payload");
            assert_encoded(&request(7, size), encoded);
        }
        for encoded in [1 << 20, MAX_MESSAGE, MAX_MESSAGE + 1] {
            let size = payload_size_for(encoded).expect("there is such a payload");
            assert_encoded(&request(7, size), encoded);
        }
        assert_eq!(payload_size_for(1), None);
    }

    #[test]
    fn patterns_differ_by_seed_and_at_every_chunk() {
        assert_ne!(pattern(1, 64), pattern(2, 64));
        let long = pattern(3, 4 * 16_384);
        assert_ne!(long[..16_384], long[16_384..32_768]);
        assert_eq!(long, pattern(3, 4 * 16_384));
    }

    #[test]
    fn the_digest_tells_where_one_message_ends() {
        let whole = [request(0, 0), request(0, 8)];
        let split = [request(0, 8), request(0, 0)];
        assert_ne!(received(&whole).digest, received(&split).digest);
    }
}
