//! Our codec and prost read what the other writes, and agree on arbitrary bytes.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use tunnel_core::Side;
use tunnel_core::frame::codec::{decode, encode};

use crate::arbitrary::{damage, field, foreign, map_entry, shuffled};
use crate::frames::{borrowed, sent};
use crate::oracle::{Wire, agree, encoded, frame, message, sorted};
use crate::wire::delimited;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn prost_reads_what_we_write((from, frame) in sent()) {
        let theirs = Wire::parse(from, encoded(from, &frame));
        prop_assert_eq!(theirs.expect("prost accepts it"), message(from, &frame));
    }

    #[test]
    fn we_write_the_bytes_that_prost_writes((from, frame) in sent()) {
        // prost sorts keys. The format leaves nothing else open.
        let frame = sorted(frame);
        prop_assert_eq!(encoded(from, &frame), message(from, &frame).bytes());
    }

    #[test]
    fn we_read_what_we_write((from, frame) in sent()) {
        let ours = decode(from, encoded(from, &frame)).expect("we accept it");
        prop_assert_eq!(sorted(ours), sorted(frame));
    }

    #[test]
    fn what_is_in_the_buffer_stays_there((from, frame) in sent(), before in vec(any::<u8>(), 0..50)) {
        let mut buf = BytesMut::from(&before[..]);
        encode(from, &borrowed(&frame), &mut buf);
        prop_assert_eq!(&buf[..before.len()], &before);
        prop_assert_eq!(&buf[before.len()..], &encoded(from, &frame));
    }

    #[test]
    fn we_read_what_prost_writes(message in foreign()) {
        let ours = decode(message.from(), message.bytes()).expect("we accept it");
        prop_assert_eq!(sorted(ours), frame(message));
    }

    #[test]
    fn prost_and_we_agree_on_arbitrary_bytes(bytes in vec(any::<u8>(), 0..40)) {
        agree(Side::Caller, &bytes.clone().into())?;
        agree(Side::Handler, &bytes.into())?;
    }

    #[test]
    fn prost_and_we_agree_on_arbitrary_fields(fields in vec(field(), 0..8)) {
        let bytes = Bytes::from(fields.concat());
        agree(Side::Caller, &bytes)?;
        agree(Side::Handler, &bytes)?;
    }

    #[test]
    fn prost_and_we_agree_on_maps_whose_keys_come_twice(
        entries in vec(map_entry(), 0..30),
        at in any::<Index>(),
    ) {
        // One metadata, and the same in two pieces to merge.
        let (a, b) = entries.split_at(at.index(entries.len() + 1));
        let (a, b) = (a.concat(), b.concat());
        for list in [delimited(2, &[&a[..], &b].concat()), [delimited(2, &a), delimited(2, &b)].concat()] {
            agree(Side::Handler, &list.clone().into())?;
            agree(Side::Caller, &delimited(2, &list).into())?;
        }
    }

    #[test]
    fn prost_and_we_agree_on_damaged_frames(
        (from, frame) in sent(),
        damage in vec(damage(), 1..4),
    ) {
        let mut bytes = encoded(from, &frame).to_vec();
        for damage in damage {
            damage.apply(&mut bytes);
        }
        agree(from, &bytes.into())?;
    }

    #[test]
    fn prost_and_we_agree_on_frames_written_one_after_another(
        frames in vec(sent(), 2..5),
        from in prop_oneof![Just(Side::Caller), Just(Side::Handler)],
    ) {
        let of_one_side = frames.iter().filter(|(side, _)| *side == from);
        let bytes = of_one_side.flat_map(|(from, frame)| encoded(*from, frame));
        agree(from, &bytes.collect())?;
    }

    #[test]
    fn prost_and_we_agree_whatever_the_order_of_fields(
        (from, frame) in sent(),
        other in field(),
        seed in any::<u64>(),
    ) {
        let mut bytes = encoded(from, &frame).to_vec();
        bytes.extend(other);
        if let Some(shuffled) = shuffled(&bytes, seed, 4) {
            agree(from, &shuffled.into())?;
        }
    }
}
