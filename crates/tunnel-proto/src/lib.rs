//! Wire types of the gRPC tunnel protocol, [`grpctunnel.v1`](grpctunnel::v1).
//!
//! A tunnel is one bidirectional gRPC stream that carries any number of gRPC
//! calls. This crate has the messages of that stream. `tunnel-core` implements
//! the protocol.
//!
//! | module | protobuf package | content |
//! |---|---|---|
//! | [`grpctunnel::v1`] | `grpctunnel.v1` | the frames, and the stubs of `TunnelService` |
//! | [`google::rpc`] | `google.rpc` | `Status`, the end of a call |
//!
//! Fields of type `bytes` are [`bytes::Bytes`]: decoding from a `Bytes` shares its
//! memory and does not copy. Maps are ordered, so equal messages have equal bytes.
//!
//! # Example
//!
//! ```
//! use bytes::Bytes;
//! use prost::Message;
//! use tunnel_proto::grpctunnel::v1::{ClientToServer, MessageData, client_to_server::Frame};
//!
//! let frame = ClientToServer {
//!     stream_id: 1,
//!     frame: Some(Frame::RequestMessage(MessageData {
//!         size: 5,
//!         data: Bytes::from_static(b"hello"),
//!         compressed: false,
//!     })),
//! };
//! let wire = Bytes::from(frame.encode_to_vec());
//! assert_eq!(ClientToServer::decode(wire)?, frame);
//! # Ok::<(), prost::DecodeError>(())
//! ```
//!
//! # Features
//!
//! Without features the crate depends only on `bytes`, `prost` and `prost-types`.
//!
//! - `client`: `grpctunnel::v1::tunnel_service_client`, the tonic stub by which a
//!   network client opens tunnels.
//! - `server`: `grpctunnel::v1::tunnel_service_server`, the tonic stub by which a
//!   network server accepts them.
//!
//! Neither needs tonic's transport. The generated code is checked in, so building
//! this crate does not need `protoc`. `cargo xtask codegen` generates it again.

/// The tunnel protocol.
pub mod grpctunnel {
    /// Version one of the tunnel protocol: `TunnelService` and its frames.
    ///
    /// The *caller* of the tunnelled calls sends
    /// [`ClientToServer`](v1::ClientToServer), their *handler* sends
    /// [`ServerToClient`](v1::ServerToClient). Either may have dialled the
    /// connection.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
    pub mod v1 {
        include!("generated/grpctunnel.v1.rs");
    }
}

/// Google's messages that the tunnel protocol uses.
pub mod google {
    /// The status of a call.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
    pub mod rpc {
        include!("generated/google.rpc.rs");
    }
}

/// The descriptors of these packages and their imports, as an encoded
/// `google.protobuf.FileDescriptorSet`, for gRPC server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptor.bin");

#[cfg(test)]
mod tests;
