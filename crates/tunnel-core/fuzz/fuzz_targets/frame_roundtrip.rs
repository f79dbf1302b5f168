//! An arbitrary frame: what one of prost and us writes, the other reads. See `src/bodies/frame_roundtrip.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tunnel_core_fuzz::frame_roundtrip(data));
