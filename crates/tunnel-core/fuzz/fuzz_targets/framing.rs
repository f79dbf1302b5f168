//! Frames on a byte stream in arbitrary pieces. See `src/bodies/framing.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tunnel_core_fuzz::framing(data));
