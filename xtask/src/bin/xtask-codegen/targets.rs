//! The targets of code generation: the `.proto` files, the options and the output directories.

use tonic_prost_build::Builder;

/// One directory of generated code.
pub(crate) struct Target {
    /// The directory that imports are relative to.
    pub(crate) include: &'static str,
    /// The files to generate code for.
    pub(crate) protos: Protos,
    /// The output directory. It contains generated files only.
    pub(crate) out: &'static str,
    /// Whether `bytes` and `map` fields become `Bytes` and `BTreeMap` instead of `Vec<u8>` and
    /// `HashMap`.
    pub(crate) wire_types: bool,
    /// Whether to write the descriptors beside the code, for reflection.
    pub(crate) descriptor: bool,
    /// How the service stubs are generated.
    pub(crate) stubs: fn(Builder) -> Builder,
}

/// The `.proto` files of a target.
pub(crate) enum Protos {
    /// The named files, relative to the include directory.
    Files(&'static [&'static str]),
    /// Every file in the include directory. It is not an error if there is none.
    All,
}

/// Everything that `cargo xtask codegen` writes.
pub(crate) const TARGETS: &[Target] = &[
    Target {
        include: "proto",
        protos: Protos::Files(&["google/rpc/status.proto", "grpctunnel/v1/tunnel.proto"]),
        out: "crates/tunnel-proto/src/generated",
        wire_types: true,
        descriptor: true,
        stubs: gated_stubs,
    },
    Target {
        include: "proto",
        protos: Protos::Files(&["test/echo.proto"]),
        out: "examples/support/src/generated",
        wire_types: false,
        descriptor: true,
        stubs: plain_stubs,
    },
    Target {
        include: "proto",
        protos: Protos::Files(&["test/file.proto", "test/session.proto"]),
        out: "examples/cookbook/src/generated",
        wire_types: true,
        descriptor: false,
        stubs: plain_stubs,
    },
    Target {
        include: "crates/tunnel-conformance/proto",
        protos: Protos::All,
        out: "crates/tunnel-conformance/src/generated",
        wire_types: true,
        descriptor: false,
        stubs: plain_stubs,
    },
    Target {
        include: "crates/tunnel-bench/proto",
        protos: Protos::All,
        out: "crates/tunnel-bench/src/generated",
        wire_types: true,
        descriptor: false,
        stubs: plain_stubs,
    },
    Target {
        include: "crates/tunnel-fleet/proto",
        protos: Protos::Files(&["tunnel/fleet/v1/peer.proto"]),
        out: "crates/tunnel-fleet/src/peer/generated",
        wire_types: true,
        descriptor: false,
        stubs: plain_stubs,
    },
    Target {
        include: "crates/tunnel-cli/proto",
        protos: Protos::Files(&["tunnel/admin/v1/admin.proto"]),
        out: "crates/tunnel-cli/src/generated",
        wire_types: true,
        descriptor: true,
        stubs: plain_stubs,
    },
    Target {
        include: "crates/tunnel-cli/proto",
        protos: Protos::Files(&["tunnel/enroll/v1/enroll.proto"]),
        out: "crates/tunnel-cli/src/enroll/generated",
        wire_types: true,
        descriptor: false,
        stubs: plain_stubs,
    },
    Target {
        include: "crates/tunnel-fleet/proto",
        protos: Protos::All,
        out: "crates/tunnel-fleet/src/directory/etcd/generated",
        wire_types: true,
        descriptor: false,
        stubs: client_stubs,
    },
];

/// Stubs with tonic's default options.
fn plain_stubs(builder: Builder) -> Builder {
    builder
}

/// Client stubs alone, without `connect`: for the API of somebody else's server.
fn client_stubs(builder: Builder) -> Builder {
    builder.build_server(false).build_transport(false)
}

/// Stubs behind the crate features `client` and `server`, without `connect`, so that they do not
/// need tonic's transport.
fn gated_stubs(builder: Builder) -> Builder {
    builder
        .build_transport(false)
        .client_mod_attribute(".", r#"#[cfg(feature = "client")]"#)
        .server_mod_attribute(".", r#"#[cfg(feature = "server")]"#)
}
