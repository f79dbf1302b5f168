//! The generated code of the benchmark's service.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]

include!("generated/tunnel.bench.v1.rs");
