//! What holds whatever two ends do, in whatever order, and whatever a peer says.
//!
//! The model is that of the fuzz target `connection`. These tests generate its input: bytes that
//! are mostly well-formed operations. A failing input can be kept in `fuzz/found/connection`.

#[allow(
    dead_code,
    reason = "other fuzz targets read their input with the rest"
)]
#[path = "../../fuzz/src/bodies/input.rs"]
mod input;

#[path = "../../fuzz/src/bodies/connection/mod.rs"]
mod connection;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;

use connection::op;
use input::Input;

type Allow = fn(Option<usize>);

/// The choice of a setup that joins two ends.
const PAIR: u8 = 64;

fn cases(cases: u32) -> ProptestConfig {
    let set = ProptestConfig::default();
    let further = std::env::var_os("PROPTEST_CASES").is_some();
    ProptestConfig {
        cases: if further { set.cases } else { cases },
        failure_persistence: None,
        // The same cases each time; PROPTEST_RNG_SEED and PROPTEST_CASES look further.
        rng_seed: match set.rng_seed {
            RngSeed::Random => RngSeed::Fixed(1),
            seed => seed,
        },
        ..set
    }
}

fn run(setup: &[u8], ops: &[Vec<u8>]) {
    let input = [setup, &ops.concat()].concat();
    connection::run(&input, |_| {});
}

/// The setup: choices, and one byte for each number.
fn setup(kept: u8, set: u8) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 14).prop_map(move |mut bytes| {
        bytes[0] = bytes[0] & kept | set;
        bytes
    })
}

/// An operation of the application or the transport.
fn app() -> impl Strategy<Value = Vec<u8>> {
    // The arguments, and those of a handler beyond a caller's.
    let with = |code: u8, len: usize, handlers: usize| {
        (any::<bool>(), vec(any::<u8>(), len + handlers)).prop_map(move |(handler, mut args)| {
            args.truncate(len + if handler { handlers } else { 0 });
            args.insert(0, code | u8::from(handler) << 7);
            args
        })
    };
    let sized = |code: u8| {
        (with(code, 1, 0), size()).prop_map(|(op, size)| [op, size.to_be_bytes().to_vec()].concat())
    };
    prop_oneof![
        6 => with(op::OPEN, 1, 0),
        8 => sized(op::MESSAGE),
        4 => sized(op::BODY),
        4 => sized(op::BEGIN),
        8 => sized(op::WRITE),
        5 => with(op::FINISH, 1, 2),
        2 => with(op::HEADERS, 2, 0),
        2 => with(op::ABANDON, 1, 1),
        12 => with(op::READ, 2, 0),
        1 => with(op::TAKE_HEADERS, 1, 0),
        3 => with(op::WRITABLE, 1, 0),
        8 => (with(op::TRANSMIT, 0, 0), select(vec![0, 1, 6, 60, 255])).prop_map(pushed),
        3 => (with(op::PASS, 0, 0), select(vec![0, 1, 4, 10, 25, 250])).prop_map(pushed),
        1 => (with(op::DRAIN, 0, 0), select(vec![0, 5, 20])).prop_map(pushed),
    ]
}

fn pushed((mut op, last): (Vec<u8>, u8)) -> Vec<u8> {
    op.push(last);
    op
}

/// The size of a message: small, about a window, or several.
fn size() -> impl Strategy<Value = u16> {
    prop_oneof![
        1 => Just(0),
        3 => 0..30u16,
        3 => (select(vec![10u16, 100, 300, 1024]), 0..3u16, 1..3u16)
            .prop_map(|(window, more, times)| window * times + more - 1),
        1 => 0..6000u16,
    ]
}

proptest! {
    #![proptest_config(cases(400))]

    /// Every message sent is received whole and in order, or its stream has ended with a
    /// reason; no window is exceeded; memory stays under the formula; when both ends read all
    /// there is, every call comes to its end, and when all calls have, nothing is left.
    #[test]
    fn two_ends_keep_their_promises(
        setup in setup(!PAIR, PAIR),
        ops in vec(prop_oneof![
            75 => app(),
            6 => (select(vec![0, 0x80]), select(vec![1, 3, 10, 255]))
                .prop_map(|(side, count)| vec![op::CARRY | side, count]),
            3 => Just(vec![op::PUMP]),
        ], 1..120),
    ) {
        run(&setup, &ops);
    }
}

proptest! {
    #![proptest_config(cases(400))]

    /// No sequence of frames makes an end panic, hold more than it may, or keep anything of
    /// calls that are over.
    #[test]
    fn no_peer_can_break_an_end(
        setup in setup(!PAIR, 0),
        ops in vec(prop_oneof![
            60 => vec(any::<u8>(), 2..9).prop_map(|args| [vec![op::FRAME], args].concat()),
            35 => app(),
            1 => any::<u8>().prop_map(|how| vec![op::END, how]),
        ], 1..150),
    ) {
        run(&setup, &ops);
    }
}
