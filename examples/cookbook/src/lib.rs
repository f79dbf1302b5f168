//! The service of the `large-file` program. Everything else is in the programs themselves, in `src/bin`.

/// The protobuf package `test`: the messages and the stubs of `FileService`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
pub mod test {
    include!("generated/test.rs");
}
