//! What the gateways of a fleet ask each other, over the tunnels between them.

mod service;

/// The generated code.
#[allow(clippy::all, missing_docs, unreachable_pub, unused)]
pub(crate) mod api {
    include!("generated/tunnel.fleet.v1.rs");
}

pub(crate) use service::PeerService;
