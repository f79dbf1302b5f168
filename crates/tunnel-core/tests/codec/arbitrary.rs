//! Arbitrary messages, also such as this library never sends.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use tunnel_proto::google::rpc;
use tunnel_proto::grpctunnel::v1::{self, client_to_server, metadata, server_to_client};

use crate::frames::sent;
use crate::oracle::{Wire, message};
use crate::wire::{delimited, key, varint};

/// Any messages of prost: with absent and empty parts, keys without values, unknown codes.
pub(crate) fn foreign() -> impl Strategy<Value = Wire> {
    let values = vec(".{0,5}", 0..3).prop_map(|val| metadata::Values { val });
    let md = proptest::collection::btree_map(".{0,4}", values, 0..6)
        .prop_map(|md| v1::Metadata { md })
        .boxed();
    let maybe = proptest::option::of(md.clone());
    let any_status = (any::<i32>(), ".{0,5}", vec(Just(Default::default()), 0..2)).prop_map(
        |(code, message, details)| rpc::Status {
            code,
            message,
            details,
        },
    );
    let new = (maybe.clone(), any::<i32>()).prop_map(|(request_headers, protocol_revision)| {
        client_to_server::Frame::NewStream(v1::NewStream {
            request_headers,
            protocol_revision,
            ..Default::default()
        })
    });
    let close =
        (maybe, proptest::option::of(any_status)).prop_map(|(response_trailers, status)| {
            server_to_client::Frame::CloseStream(v1::CloseStream {
                response_trailers,
                status,
            })
        });
    let headers = md.prop_map(server_to_client::Frame::ResponseHeaders);
    prop_oneof![
        proptest::option::of(new).prop_map(|frame| Wire::Caller(v1::ClientToServer {
            stream_id: 7,
            frame
        })),
        proptest::option::of(prop_oneof![close, headers]).prop_map(|frame| Wire::Handler(
            v1::ServerToClient {
                stream_id: 7,
                frame
            }
        )),
        sent().prop_map(|(from, frame)| message(from, &frame)),
    ]
}

/// A field, mostly with a number of this protocol and a valid value. The value often has the wrong
/// type, may be nested, and is sometimes broken.
pub(crate) fn field() -> impl Strategy<Value = Vec<u8>> {
    let scalar = prop_oneof![
        4 => (0..8u32, prop_oneof![0..300u64, any::<u64>()], 0..3usize)
            .prop_map(|(n, value, padding)| [varint(key(n, 0), 0), varint(value, padding)].concat()),
        4 => (0..8u32, prop_oneof!["[a-b]{0,2}", ".{0,4}"])
            .prop_map(|(n, text)| delimited(n, text.as_bytes())),
        1 => (1..16u32, vec(any::<u8>(), 0..8)).prop_map(|(n, bytes)| delimited(n, &bytes)),
        1 => (1..9u32, any::<[u8; 4]>()).prop_map(|(n, v)| [&varint(key(n, 5), 0)[..], &v].concat()),
        1 => (1..9u32, any::<[u8; 8]>()).prop_map(|(n, v)| [&varint(key(n, 1), 0)[..], &v].concat()),
        1 => (0..9u32, 3..8u32).prop_map(|(n, wire)| varint(key(n, wire), 0)),
    ];
    scalar.prop_recursive(5, 40, 5, |inner| {
        let inner = vec(inner, 0..5).prop_map(|fields| fields.concat());
        prop_oneof![
            8 => (1..7u32, inner.clone()).prop_map(|(n, fields)| delimited(n, &fields)),
            1 => (1..12u32, inner, 0..12u32).prop_map(|(n, fields, end)| {
                let end = if end == 0 { n + 1 } else { n };
                [varint(key(n, 3), 0), fields, varint(key(end, 4), 0)].concat()
            }),
        ]
    })
}

/// A nearly valid map entry, for lists with repeated keys.
pub(crate) fn map_entry() -> impl Strategy<Value = Vec<u8>> {
    let key = "[a-c]{0,1}".prop_map(|key| delimited(1, key.as_bytes()));
    let values = vec("[x-z]{0,1}".prop_map(|v| delimited(1, v.as_bytes())), 0..3)
        .prop_map(|values| delimited(2, &values.concat()));
    let part = prop_oneof![3 => key.clone(), 3 => values.clone(), 1 => Just(vec![0x18, 0x01])];
    prop_oneof![
        3 => (key, values).prop_map(|(key, values)| [key, values].concat()),
        1 => vec(part, 0..4).prop_map(|parts| parts.concat()),
    ]
    .prop_map(|fields| delimited(1, &fields))
}

#[derive(Clone, Debug)]
pub(crate) enum Damage {
    Flip(Index, u8),
    Set(Index, u8),
    Truncate(Index),
    Remove(Index),
    Repeat(Index, Index),
    Insert(Index, Vec<u8>),
    Rotate(Index),
}

pub(crate) fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), 0..8u8).prop_map(|(at, bit)| Damage::Flip(at, 1 << bit)),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        2 => at().prop_map(Damage::Truncate),
        1 => at().prop_map(Damage::Remove),
        1 => (at(), at()).prop_map(|(a, b)| Damage::Repeat(a, b)),
        1 => (at(), field()).prop_map(|(at, field)| Damage::Insert(at, field)),
        1 => at().prop_map(Damage::Rotate),
    ]
}

impl Damage {
    pub(crate) fn apply(self, bytes: &mut Vec<u8>) {
        let len = bytes.len();
        if len == 0 {
            return;
        }
        match self {
            Self::Flip(at, bits) => bytes[at.index(len)] ^= bits,
            Self::Set(at, byte) => bytes[at.index(len)] = byte,
            Self::Truncate(at) => bytes.truncate(at.index(len)),
            Self::Remove(at) => drop(bytes.remove(at.index(len))),
            Self::Repeat(a, b) => {
                let (a, b) = (a.index(len), b.index(len));
                let part = bytes[a.min(b)..=a.max(b)].to_vec();
                bytes.splice(a..a, part);
            }
            Self::Insert(at, field) => drop(bytes.splice(at.index(len)..at.index(len), field)),
            Self::Rotate(at) => bytes.rotate_left(at.index(len)),
        }
    }
}

/// The same message with its fields in another order on every level, as far as fields can be
/// recognized as messages.
pub(crate) fn shuffled(message: &[u8], seed: u64, depth: u32) -> Option<Vec<u8>> {
    use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

    let mut rest = message;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let start = rest;
        let (number, wire) = decode_key(&mut rest).ok()?;
        let mut value = rest;
        skip_field(wire, number, &mut rest, DecodeContext::default()).ok()?;
        let mut field = start[..start.len() - rest.len()].to_vec();
        if wire == WireType::LengthDelimited && depth > 0 {
            let len = decode_varint(&mut value).ok()? as usize;
            if let Some(inner) = shuffled(&value[..len], seed / 7, depth - 1) {
                field = delimited(number, &inner);
            }
        }
        fields.push(field);
    }
    if !fields.is_empty() {
        let len = fields.len();
        fields.rotate_left(seed as usize % len);
        fields.swap(0, (seed / 3) as usize % len);
    }
    Some(fields.concat())
}
