//! The settings of a gateway in a fleet.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::record::{Denial, GatewayRecord};

/// Whether a key may have tunnels of one device only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exclusive {
    /// A key may have tunnels of several devices, at several gateways.
    #[default]
    No,
    /// A key belongs to one device at a time: the latest one. While the directory does not answer, devices
    /// connect without it, and nothing is guaranteed.
    Yes,
    /// As [`Yes`](Self::Yes), but while the directory does not answer no device connects: UNAVAILABLE.
    Strict,
}

/// The settings of a gateway in a fleet.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) fleet: String,
    pub(crate) name: String,
    pub(crate) record: GatewayRecord,
    pub(crate) ttl: Duration,
    pub(crate) exclusive: Exclusive,
    pub(crate) refuse_while_stale: bool,
    pub(crate) sweep_after: (Duration, Duration),
    pub(crate) on_denial: Option<OnDenial>,
}

type DenialHook = dyn Fn(&str, Option<&Denial>) + Send + Sync;

/// A hook that hears of denials.
#[derive(Clone)]
pub(crate) struct OnDenial(pub(crate) Arc<DenialHook>);

impl fmt::Debug for OnDenial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnDenial")
    }
}
