//! An arbitrary frame: our codec and prost read what the other writes. See `src/bodies/frame_roundtrip.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tunnel_core_fuzz::frame_roundtrip(data));
