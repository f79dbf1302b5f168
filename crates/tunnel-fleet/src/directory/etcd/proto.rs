//! Generated from the files in `proto`.

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated code"
)]
#[rustfmt::skip]
#[path = "generated/etcdserverpb.rs"]
pub(crate) mod etcdserverpb;

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated code"
)]
#[rustfmt::skip]
#[path = "generated/mvccpb.rs"]
pub(crate) mod mvccpb;
