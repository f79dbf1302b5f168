//! Many gateways of gRPC tunnels as one fleet: any of them reaches every device.
//!
//! With one gateway a [`TunnelServiceHandler`](tunnel_server::TunnelServiceHandler) is enough. With two, half of the
//! devices are at the other one. A [`Fleet`] knows where each device is, from a [directory](directory::Directory) that
//! the gateways share, and sends calls there over a tunnel between the gateways, a *hop*.
//!
//! ```text
//! client ──▶ gateway A ──hop──▶ gateway B ──reverse tunnel──▶ device
//!                └──── directory (etcd) ────┘
//! ```
//!
//! - [`Fleet::channel`] is a channel to a device: through a tunnel at this gateway if there is one, else by one hop. There is never a
//!   second hop.
//! - No call is made twice. A call is tried elsewhere only if it was certainly not processed.
//! - Without the directory calls go on with what is known, and new devices are asked for at the other gateways.
//! - Give each device two tunnels, to two gateways. Then a gateway that is killed costs the calls in flight there
//!   and nothing else, long before any lease has ended.
//!
//! The example in [`Fleet`] shows how a gateway joins.
//!
//! # Features
//!
//! `etcd`: the directory in etcd. `metrics`, `tls-ring` and `tls-aws-lc` as in `tunnel-server`. Default: none.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod cache;
mod channel;
mod deny;
pub mod directory;
mod exclusive;
mod fleet;
mod follow;
mod hop;
mod hops;
mod member;
mod moments;
mod peer;
mod publish;
pub mod record;
mod settings;
mod shared;
mod waiters;

pub use builder::FleetBuilder;
pub use cache::{GatewayState, Incarnation, Route};
pub use channel::{FleetChannel, FleetResponseFuture};
pub use deny::DenyReport;
pub use exclusive::SESSION;
pub use fleet::{Fleet, FleetStats};
pub use hop::{DevicesFirst, OrDevice};
pub use member::JoinError;
pub use settings::Exclusive;
