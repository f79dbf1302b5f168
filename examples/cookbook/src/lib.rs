//! The services of the programs `large-file` and `session-affinity`. Everything else is in the programs
//! themselves, in `src/bin`.

/// The protobuf package `test`: the messages and the stubs of `FileService` and `SessionService`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
pub mod test {
    include!("generated/test.rs");
}
