//! Code that the examples share: the log format, addresses, the echo service.
//!
//! It neither opens nor accepts tunnels: that stands in the examples themselves.

pub mod address;
pub mod caller;
#[cfg(feature = "certificates")]
pub mod certificates;
pub mod echo;
pub mod exit;
pub mod held;
pub mod listen;
pub mod log;
pub mod machine;
pub mod serve;
pub mod signal;
pub mod testing;

/// The protobuf package `test`: the messages and the stubs of `EchoService`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
pub mod test {
    include!("generated/test.rs");

    /// The descriptors of the package, for server reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptor.bin");
}
