//! Wire types of the gRPC tunnel protocol, [`grpctunnel.v1`](grpctunnel::v1).
//!
//! A tunnel is one bidirectional gRPC stream that carries any number of gRPC
//! calls. This crate holds the frames of that stream and nothing that gives
//! them a meaning; `tunnel-core` does that.
//!
//! | module | protobuf package | what it holds |
//! |---|---|---|
//! | [`grpctunnel::v1`] | `grpctunnel.v1` | the frames, and the stubs of `TunnelService` |
//! | [`google::rpc`] | `google.rpc` | `Status`, with which a call ends |
//!
//! Fields of type `bytes` are [`bytes::Bytes`], so that decoding from a `Bytes`
//! shares its memory instead of copying; maps are ordered, so that equal
//! messages have equal bytes.
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
//!     })),
//! };
//! let wire = Bytes::from(frame.encode_to_vec());
//! assert_eq!(ClientToServer::decode(wire)?, frame);
//! # Ok::<(), prost::DecodeError>(())
//! ```
//!
//! # Features
//!
//! Without any, the crate depends on `bytes`, `prost` and `prost-types` alone.
//!
//! - `client`: `grpctunnel::v1::tunnel_service_client`, the tonic stub with
//!   which a network client opens tunnels.
//! - `server`: `grpctunnel::v1::tunnel_service_server`, the tonic stub with
//!   which a network server accepts them.
//!
//! Neither needs tonic's transport. The code is generated and checked in, so
//! neither building this crate nor depending on it needs `protoc`;
//! `cargo xtask codegen` renews it.

/// The tunnel protocol.
pub mod grpctunnel {
    /// Version one of the tunnel protocol: `TunnelService` and its frames.
    ///
    /// The *caller* of the tunnelled calls sends
    /// [`ClientToServer`](v1::ClientToServer), their *handler* sends
    /// [`ServerToClient`](v1::ServerToClient), whichever of the two dialled
    /// the connection.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
    pub mod v1 {
        include!("generated/grpctunnel.v1.rs");
    }
}

/// Messages of Google's that the tunnel protocol uses.
pub mod google {
    /// How a call ended, as all of gRPC describes it.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
    pub mod rpc {
        include!("generated/google.rpc.rs");
    }
}

/// The descriptors of the packages above and of all that they import, as an
/// encoded `google.protobuf.FileDescriptorSet`, for gRPC server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptor.bin");

#[cfg(test)]
mod tests;
