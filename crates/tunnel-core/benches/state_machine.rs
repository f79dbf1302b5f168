//! The speed and the allocations of the state machine alone: calls, messages, streams and frames per
//! second, in one thread that does the work of both ends.
//!
//! ```text
//! cargo bench -p tunnel-core --bench state_machine [-- FILTER]
//! ```
//!
//! Each iteration is one unit of `support/scenario.rs`, called `item` in the output. If a round has
//! several units (64 calls at a time), every 64th iteration does all of its work. A sample has only
//! whole rounds, so its mean is right.

use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher};

mod support;

use support::codec::{ENCODE, PARSE};
use support::scenario::{CALLS, MESSAGES, STREAMS, Scenario};
use support::shapes::SHAPES;

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

#[divan::bench(args = CALLS, sample_size = 512)]
fn calls(bencher: Bencher<'_, '_>, scenario: &Scenario) {
    run(bencher, scenario);
}

#[divan::bench(args = MESSAGES, sample_size = 32)]
fn messages(bencher: Bencher<'_, '_>, scenario: &Scenario) {
    run(bencher.counter(BytesCount::new(scenario.payload)), scenario);
}

#[divan::bench(args = STREAMS, sample_size = 1000)]
fn streams(bencher: Bencher<'_, '_>, scenario: &Scenario) {
    run(bencher, scenario);
}

#[divan::bench(args = ENCODE, sample_size = 480)]
fn encoded_frames(bencher: Bencher<'_, '_>, scenario: &Scenario) {
    run(bencher, scenario);
}

#[divan::bench(args = PARSE, sample_size = 480)]
fn parsed_frames(bencher: Bencher<'_, '_>, scenario: &Scenario) {
    run(bencher, scenario);
}

/// Each iteration decodes a whole byte stream. Compare the throughput of the shapes.
#[divan::bench(args = SHAPES)]
fn decoded_shapes(bencher: Bencher<'_, '_>, shape: &Scenario) {
    let bytes = BytesCount::new(shape.units());
    let mut round = shape.set_up();
    bencher.counter(bytes).bench_local(&mut round);
}

fn run(bencher: Bencher<'_, '_>, scenario: &Scenario) {
    let mut round = scenario.set_up();
    for _ in 0..scenario.rounds {
        round();
    }
    let units = scenario.units();
    let mut units_ahead = 0;
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
        if units_ahead == 0 {
            round();
            units_ahead = units;
        }
        units_ahead -= 1;
    });
}
