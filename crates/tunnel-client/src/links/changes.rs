//! Changes of the gateways: their links are shown and hidden together with them.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use super::gateway_state::GatewayState;
use super::shared::Shared;
use super::status::{LinkStatus, LinksStopped};
use crate::gateway::Gateway;

impl Shared {
    /// Adds a gateway, and starts its links if the others run.
    pub(crate) fn add_gateway(&self, gateway: Gateway) -> Result<(), LinksStopped> {
        let check = || match self.registry.stop_reason() {
            Some(reason) => Err(LinksStopped { reason }),
            None => Ok(()),
        };
        let added = self
            .gateways
            .add(gateway, None, check, |added| self.show(added));
        added.map(|_| ())
    }

    /// Adds the gateway at one of the addresses of a name, unless the name was removed.
    pub(crate) fn add_address(
        &self,
        name: &Arc<GatewayState>,
        address: SocketAddr,
    ) -> Option<Arc<GatewayState>> {
        let gateway = name.gateway.at(address);
        let added = self
            .gateways
            .add(gateway, Some(name), || Ok(()), |added| self.show(added));
        added.unwrap_or_else(|never: Infallible| match never {})
    }

    /// Shows the links of a gateway.
    pub(crate) fn show(&self, gateway: &GatewayState) {
        self.status_tx.send_modify(|links| {
            let added = gateway.links().enumerate();
            links.extend(added.map(|(n, link)| LinkStatus::new(link, gateway.name.clone(), n)));
        });
    }

    /// Removes the gateways with this name. Returns whether there were any.
    pub(crate) fn remove_gateway(&self, name: &str) -> bool {
        self.remove(|gateway| gateway.is_of_user() && *gateway.name == *name)
    }

    pub(crate) fn remove_one(&self, gateway: &GatewayState) {
        self.remove(|other| other.number == gateway.number);
    }

    /// Removes the gateways that satisfy a condition. Returns whether there were any.
    fn remove(&self, wanted: impl Fn(&GatewayState) -> bool) -> bool {
        let show = |removed: &[Arc<GatewayState>]| {
            self.status_tx.send_modify(|links| {
                let numbers: HashSet<_> = removed.iter().flat_map(|g| g.links()).collect();
                for link in links {
                    link.removed |= numbers.contains(&link.number);
                }
            });
        };
        let removed = self.gateways.remove(wanted, show);
        self.wake_calls();
        removed > 0
    }
}
