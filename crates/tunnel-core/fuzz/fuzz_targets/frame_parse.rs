//! Arbitrary bytes as a frame: our parser and prost agree on them. See `src/bodies/frame_parse.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tunnel_core_fuzz::frame_parse(data));
