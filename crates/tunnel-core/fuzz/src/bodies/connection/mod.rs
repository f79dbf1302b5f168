//! The model of a `Connection`: arbitrary operations at one end, whose peer sends anything, or at
//! two joined ends that behave. The fuzz target runs it on a fuzzer's bytes, the property tests
//! on bytes that proptest generates.
//!
//! Layout: the setup ([`Setup::read`]), then operations until the input ends: a byte that
//! says which ([`op`]), and what it needs. At each end ([`end`]) is checked:
//!
//! - nothing panics, an error ends the tunnel, and then nothing happens any more;
//! - counters and memory stay under the limits, and are zero when all calls are over;
//! - the application reads what was sent to it, in order, each end once, and gets the events it
//!   waits for; operations are refused only for the reason that applies ([`app`]);
//! - what is sent obeys the protocol and the peer's windows to the byte, and no more credit is
//!   granted than was read ([`peer`]);
//! - timers never fire in the past, and a pause of reading always has a timer that ends it.
//!
//! With two ends ([`pair`]) also: no end ends the tunnel; messages arrive whole, all of them before
//! a clean end; only a call that was cancelled, had a deadline or met a drain or a tight limit
//! fails; events alone are enough to bring each call to its end; then nothing is left.

pub(crate) mod app;
mod end;
mod frames;
mod lone;
pub(crate) mod op;
mod pair;
pub(crate) mod peer;
mod setup;

use tunnel_core::Side;

use super::{Allow, Input};
use lone::Lone;
use pair::Pair;
use setup::Setup;

/// The payload of a run in each direction, in bytes.
const PAYLOAD: usize = 1 << 18;

/// What a run of this program itself may hold, beside payloads, in bytes: for each byte of input,
/// and once.
const OWN_TIMES: usize = 1024;
const OWN: usize = 256 << 10;

pub(crate) fn run(data: &[u8], allow: Allow) {
    let mut input = Input::new(data);
    let setup = Setup::read(&mut input);
    let ends = 1 + usize::from(setup.pair);
    let own = OWN_TIMES * data.len() + OWN;
    allow(Some(ends * (setup.memory() + 2 * PAYLOAD + own)));
    if setup.pair {
        let mut pair = Pair::new(&setup);
        while !input.is_empty() {
            pair.apply(&mut input);
            pair.check();
        }
        pair.finish();
    } else {
        let mut lone = Lone::new(setup, &mut input);
        while !input.is_empty() {
            lone.apply(&mut input);
            lone.0.check();
        }
        lone.0.finish();
    }
    allow(None);
}

/// The byte at a place of what one direction of a stream carries: it differs from its neighbours
/// and from those of other streams and of the other direction, so that a piece out of place is
/// seen.
fn byte(from: Side, id: i64, at: usize) -> u8 {
    let lane = id.wrapping_mul(2) + i64::from(from == Side::Handler);
    (lane.wrapping_mul(31) as usize)
        .wrapping_add(at)
        .wrapping_add(at >> 8) as u8
}

fn bytes(from: Side, id: i64, at: usize, len: usize) -> bytes::Bytes {
    (at..at + len).map(|at| byte(from, id, at)).collect()
}

#[track_caller]
fn check_bytes(from: Side, id: i64, at: usize, data: &[u8]) {
    for (at, seen) in (at..).zip(data) {
        assert_eq!(*seen, byte(from, id, at), "stream {id}, byte {at}");
    }
}
