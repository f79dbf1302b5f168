//! Runs the bodies of the fuzz targets on the inputs that are checked in, without a fuzzer.
//!
//! `fuzz/seeds/TARGET` has inputs made from the golden frames of `tunnel-conformance`, and a few
//! written by hand. `BLESS=1 cargo test -p tunnel-core --test fuzzed the_seeds` makes them again.
//! `fuzz/found/TARGET` has the findings of a fuzzer. Each input is tried as it is, and with small
//! damage that is the same in each run.

mod seeds;

#[path = "../../fuzz/src/bodies/mod.rs"]
mod bodies;

#[allow(dead_code, reason = "its generators are for property tests")]
#[path = "../support/frames.rs"]
mod frames;

#[allow(dead_code, reason = "the codec's own tests use the rest")]
#[path = "../codec/oracle.rs"]
mod oracle;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// How many damaged forms of each input are tried.
const DAMAGED: u64 = 100;

fn folder(kind: &str, target: &str) -> PathBuf {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    fuzz.join(kind).join(target)
}

/// The inputs of a folder with their names, in order. Empty without a folder.
fn inputs(kind: &str, target: &str) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder(kind, target)) else {
        return Vec::new();
    };
    let mut inputs: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("the folder can be read").path();
            let name = path.file_name().unwrap_or_default();
            let input = fs::read(&path).expect("an input can be read");
            (format!("{kind}/{target}/{}", name.display()), input)
        })
        .collect();
    inputs.sort();
    inputs
}

/// Tries every input of a target, as it is and damaged.
fn replay(target: &str, body: fn(&[u8])) {
    let seeds = inputs("seeds", target);
    assert!(seeds.len() >= 5, "{target} has {} seeds", seeds.len());
    for (name, input) in seeds.into_iter().chain(inputs("found", target)) {
        attempt(&name, &input, body);
        for round in 0..DAMAGED {
            attempt(&name, &damaged(&input, round), body);
        }
    }
    attempt("nothing", b"", body);
}

fn attempt(name: &str, input: &[u8], body: fn(&[u8])) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(input))) {
        eprintln!("{name}, or what damage made of it: {}", hex(input));
        std::panic::resume_unwind(panic);
    }
}

fn hex(input: &[u8]) -> String {
    input.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The input with a few bytes changed, removed, repeated or cut off.
fn damaged(input: &[u8], round: u64) -> Vec<u8> {
    let mut state = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ input.len() as u64;
    // Xorshift: any generator will do that gives the same numbers each time.
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    let mut bytes = input.to_vec();
    for _ in 0..=random(4) {
        let at = random(bytes.len());
        match random(6) {
            _ if bytes.is_empty() => bytes.push(random(256) as u8),
            0 => bytes[at] ^= 1 << random(8),
            1 => bytes[at] = random(256) as u8,
            2 => bytes.insert(at, random(256) as u8),
            3 => drop(bytes.remove(at)),
            4 => bytes.truncate(at),
            _ => {
                let end = at + random(bytes.len() - at);
                bytes.extend_from_within(at..end);
            }
        }
    }
    bytes
}

#[test]
fn prost_and_our_parser_agree_on_the_inputs_of_frame_parse() {
    replay("frame_parse", |data| bodies::frame_parse::run(data, |_| {}));
}

#[test]
fn prost_and_our_encoder_agree_on_the_inputs_of_frame_roundtrip() {
    replay("frame_roundtrip", bodies::frame_roundtrip::run);
}

#[test]
fn the_inputs_of_framing_come_apart_as_they_should() {
    replay("framing", |data| bodies::framing::run(data, |_| {}));
}

#[test]
fn no_input_of_connection_breaks_an_end() {
    replay("connection", |data| bodies::connection::run(data, |_| {}));
}

/// `BLESS=1` writes the seeds instead.
#[test]
fn the_seeds_are_those_that_the_golden_frames_make() {
    let bless = std::env::var_os("BLESS").is_some();
    for (target, made) in seeds::all() {
        let folder = folder("seeds", target);
        if bless {
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder).expect("a folder can be made");
            for (name, bytes) in &made {
                fs::write(folder.join(name), bytes).expect("a seed can be written");
            }
        }
        let there = inputs("seeds", target);
        let made: Vec<_> = made
            .into_iter()
            .map(|(name, bytes)| (format!("seeds/{target}/{name}"), bytes))
            .collect();
        assert!(
            there == made,
            "{target}: renew them with BLESS=1 cargo test -p tunnel-core --test fuzzed the_seeds"
        );
    }
}
