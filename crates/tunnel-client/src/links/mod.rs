//! Links: tunnels that are kept up, of either direction.
//!
//! A `Link` is a loop that keeps one tunnel to one gateway up. `Shared` has the state of all links of a
//! server or channel. The `Purpose` says what an open tunnel is for: it serves calls, or it joins a
//! pool of tunnels for calls. `Gateways` is the set of gateways, which changes at run time: by the handle (`changes`), or
//! with the addresses of a name (`names`).

mod backoff;
mod changes;
mod elsewhere;
mod gateway_state;
mod gateways;
mod handle;
mod link;
mod names;
mod reconnect;
mod registry;
mod seats;
mod settings;
mod shared;
mod status;

pub use backoff::{Backoff, Draw, Steps};
pub use handle::LinksHandle;
pub use reconnect::{Beside, Plan, Told};
pub use settings::Attempt;
pub use status::{DownReason, FallbackTunnel, LinkState, LinkStatus, LinksStopped, StopReason};

pub(crate) use settings::{Settings, link_settings};
pub(crate) use shared::{Purpose, Shared};
