//! The benchmark's service, generated.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]

include!("generated/tunnel.bench.v1.rs");
