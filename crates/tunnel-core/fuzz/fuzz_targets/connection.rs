//! Arbitrary operations and frames at one end of a tunnel, or at two. See
//! `src/bodies/connection/mod.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tunnel_core_fuzz::connection(data));
