//! What holds whatever two ends do, in whatever order, and whatever a peer says.

#[path = "../support/mod.rs"]
mod support;

mod call;
mod inject;
mod model;
mod ops;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use model::Model;
use ops::{op, setup};

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

proptest! {
    #![proptest_config(cases(400))]

    /// Every message sent is received whole and in order, or its stream has ended with a
    /// reason; no window is exceeded; memory stays under the formula; when both ends read all
    /// there is, every call comes to its end, and when all calls have, nothing is left.
    #[test]
    fn two_ends_keep_their_promises(setup in setup(), ops in vec(op(), 1..120)) {
        let mut model = Model::new(&setup, &ops);
        for op in &ops {
            model.apply(op);
            model.check();
        }
        model.finish_all();
    }
}

proptest! {
    #![proptest_config(cases(400))]

    /// No sequence of frames makes an end panic, hold more than it may, or keep anything of
    /// calls that are over.
    #[test]
    fn no_peer_can_break_an_end(
        side in inject::side(),
        tight in inject::tight(),
        steps in vec(inject::step(), 1..150),
    ) {
        inject::run(side, &tight, &steps);
    }
}
