//! Arbitrary operations and frames at one end of a tunnel.
//!
//! Layout: the setup ([`Setup::read`]), then operations until the input ends: a byte that
//! says which ([`op`]), and what it needs. The peer is the input's: it says anything in any
//! order, so most of what is checked is what one end owes its application and its peer
//! whatever happens:
//!
//! - nothing panics, an error ends the tunnel, and then nothing happens any more;
//! - counters and memory stay under the limits, and are zero when all calls are over;
//! - what the application reads is what was sent to it, in order, each end once, and who was
//!   told to wait is told when there is something ([`app`]);
//! - what is sent obeys the protocol and the peer's windows to the byte ([`peer`]);
//! - timers never fire in the past, and a pause of reading always has a timer that ends it.

pub(crate) mod app;
mod frames;
mod model;
pub(crate) mod op;
pub(crate) mod peer;
mod setup;

use super::{Allow, Input};
use model::Model;
use setup::Setup;

/// What all payloads of a run add up to at most: those received, and those given to be sent.
const PAYLOAD: usize = 1 << 18;

/// What a run of this program itself may hold, beside payloads: for each byte of input, and once.
const OWN_TIMES: usize = 1024;
const OWN: usize = 256 << 10;

pub(crate) fn run(data: &[u8], allow: Allow) {
    let mut input = Input::new(data);
    let setup = Setup::read(&mut input);
    allow(Some(
        setup.memory() + 2 * PAYLOAD + OWN_TIMES * data.len() + OWN,
    ));
    let mut model = Model::new(setup, &mut input);
    while !input.is_empty() {
        model.apply(&mut input);
        model.check();
    }
    model.finish();
    drop(model);
    allow(None);
}

/// The byte at a place of what one direction of a stream carries: it differs from its neighbours
/// and from those of other streams, so that a piece out of place is seen.
fn byte(id: i64, at: usize) -> u8 {
    (id.wrapping_mul(31) as usize)
        .wrapping_add(at)
        .wrapping_add(at >> 8) as u8
}

fn bytes(id: i64, from: usize, len: usize) -> bytes::Bytes {
    (from..from + len).map(|at| byte(id, at)).collect()
}

#[track_caller]
fn check_bytes(id: i64, from: usize, data: &[u8]) {
    for (i, seen) in data.iter().enumerate() {
        assert_eq!(*seen, byte(id, from + i), "stream {id}, byte {}", from + i);
    }
}
