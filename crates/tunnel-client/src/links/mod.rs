//! Links: tunnels that are kept up, of either direction.
//!
//! A `Link` is a loop that keeps one tunnel to one gateway up; `Shared` holds what all links of a
//! server or channel have in common. What becomes of a tunnel, once it is open, is its `Purpose`:
//! it serves calls, or it joins a pool of tunnels that calls choose from.

mod activity;
mod credentials;
mod gateway_state;
mod handle;
mod link;
mod reconnect;
mod registry;
mod settings;
mod shared;
mod status;

pub use credentials::Attempt;
pub use handle::LinksHandle;
pub use status::{FallbackTunnel, LinkError, LinkState, LinkStatus, StopReason};

pub(crate) use credentials::Credentials;
pub(crate) use settings::{Settings, link_settings};
pub(crate) use shared::{Purpose, Shared};
