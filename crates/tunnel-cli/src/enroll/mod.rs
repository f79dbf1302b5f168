//! Enrolment: an agent with a one-time token gets its certificate from the gateway.
//!
//! The private key is made on the device and never leaves it.

mod agent;
mod service;

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated code"
)]
#[rustfmt::skip]
#[path = "generated/tunnel.enroll.v1.rs"]
mod proto;

pub(crate) use agent::enroll;
pub(crate) use service::{EnrollFiles, EnrollService};
