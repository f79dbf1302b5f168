//! The names of gateways: a link to a name has no tunnel, but keeps the gateways at its addresses up to date.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tunnel_tonic::TunnelError;

use super::backoff::Steps;
use super::gateway_state::{GatewayState, Standing};
use super::link::Link;
use super::reconnect::Plan;
use super::status::{DownReason, LinkState};
use crate::lookup::{Groups, Lookup};

/// The longest time until a lookup after a tunnel has failed.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// The smallest part of a time between lookups.
const LEAST_PART: f64 = 0.8;

type Known = HashMap<SocketAddr, Arc<GatewayState>>;

impl Link {
    /// Looks the name up, now and again. The link is shown until addresses are known.
    pub(super) async fn keep_looked_up(&self, lookup: &Lookup) -> Infallible {
        let mut known = Known::new();
        let mut steps = Steps::new(&self.shared.settings.backoff);
        loop {
            self.set_state(LinkState::Connecting);
            match self.look_up(lookup).await {
                Ok(groups) => {
                    steps.was_open(Duration::MAX);
                    let wanted = wanted(&groups, &known, lookup.max_addresses);
                    self.adopt(&wanted, &mut known);
                    self.hide();
                    self.outdated(lookup).await;
                }
                Err(error) => {
                    let reason = DownReason::NotOpened(error);
                    let plan = Plan::after_failure(&reason, &mut steps, &mut fastrand::f64);
                    tracing::info!(
                        gateway = %self.primary.name, %reason, retry_within_s = plan.wait.as_secs_f64(),
                        "the addresses of a gateway were not found, retrying"
                    );
                    self.note(reason);
                    self.shared.wake_calls();
                    self.back_off(plan, &steps).await;
                }
            }
        }
    }

    /// One lookup, which counts as an attempt to open a tunnel for the calls that wait.
    async fn look_up(&self, lookup: &Lookup) -> Result<Groups, TunnelError> {
        self.update(|status| status.attempts += 1);
        let attempt = self.shared.begin_attempt();
        let limit = self.shared.settings.open_timeout;
        let uri = self.primary.gateway.uri().cloned().unwrap_or_default();
        let found = match timeout(limit, lookup.look_up(&uri)).await {
            Ok(found) => found,
            Err(_) => Err(TunnelError::Timeout(limit)),
        };
        if found.is_err() {
            self.shared.attempt_failed(attempt);
        }
        found
    }

    /// Makes the known gateways those at the wanted addresses. New ones are added first, so that they can replace the
    /// others.
    fn adopt(&self, wanted: &[SocketAddr], known: &mut Known) {
        for address in wanted {
            if !known.contains_key(address) {
                let added = self.shared.add_address(&self.primary, *address);
                known.extend(added.map(|gateway| (*address, gateway)));
            }
        }
        known.retain(|address, gateway| {
            let keep = wanted.contains(address);
            if !keep {
                self.shared.remove_one(gateway);
            }
            keep
        });
    }

    /// Waits until the name is to be looked up again.
    async fn outdated(&self, lookup: &Lookup) {
        let now = Instant::now();
        let part = LEAST_PART + (1.0 - LEAST_PART) * fastrand::f64();
        let soon = now + AFTER_FAILURE.min(lookup.interval).mul_f64(part);
        tokio::select! {
            () = sleep(lookup.interval.mul_f64(part)) => {}
            () = self.primary.address_failed.notified() => sleep_until(soon).await,
        }
    }
}

/// The addresses to use: of the first group and, where all of a group have failed, of the next. Those that are known
/// already come first.
fn wanted(groups: &Groups, known: &Known, max: usize) -> Vec<SocketAddr> {
    let mut wanted = Vec::new();
    for group in groups {
        let mut group = group.clone();
        group.sort_by_key(|address| !known.contains_key(address));
        group.truncate(max);
        let standing = |address| known.get(address).map(|gateway| gateway.standing());
        let failed = group.iter().all(|a| standing(a) == Some(Standing::Away));
        wanted.extend(group);
        if !failed {
            break;
        }
    }
    wanted
}
