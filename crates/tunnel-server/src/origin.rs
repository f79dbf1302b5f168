//! The origins of tunnels: the numbers of open tunnels of each connection and address, for limits.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use tonic::{Request, Status};

use crate::policy::{Policy, Refusal};

/// A connection: the addresses of both its ends.
type Connection = (Option<SocketAddr>, SocketAddr);

/// Where a tunnel comes from. Empty if the server knows no addresses, as on a Unix socket.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Origin {
    connection: Option<Connection>,
    address: Option<IpAddr>,
}

impl Origin {
    pub(crate) fn of(request: &Request<()>) -> Self {
        let peer = request.remote_addr();
        Self {
            connection: peer.map(|peer| (request.local_addr(), peer)),
            address: peer.map(|peer| network(peer.ip())),
        }
    }

    /// The origin of a tunnel with a key, which counts against the limit of the key instead of that of
    /// the address.
    pub(crate) fn without_address(self) -> Self {
        Self {
            address: None,
            ..self
        }
    }
}

/// An IPv4 address, or the /64 network of an IPv6 address: one peer usually has all of that.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// The numbers of open tunnels by origin.
#[derive(Debug, Default)]
pub(crate) struct Origins {
    connections: HashMap<Connection, usize>,
    addresses: HashMap<IpAddr, usize>,
}

impl Origins {
    /// Refuses a tunnel if its connection or address has reached its limit.
    pub(crate) fn check(&self, policy: &Policy, origin: &Origin) -> Result<(), Refusal> {
        let refused = |what: &str, limit: &'static str, open: usize| {
            let message =
                format!("{what} has {open} tunnels open, as many as the server's {limit} allows");
            Err(Refusal::new(limit, Status::resource_exhausted(message)))
        };
        let open = count(&self.connections, origin.connection);
        if open >= policy.max_per_connection {
            return refused("the connection", "max_tunnels_per_connection", open);
        }
        let open = count(&self.addresses, origin.address);
        if open >= policy.max_per_address {
            return refused("the address", "max_tunnels_per_address", open);
        }
        Ok(())
    }

    pub(crate) fn add(&mut self, origin: &Origin) {
        if let Some(connection) = origin.connection {
            *self.connections.entry(connection).or_default() += 1;
        }
        if let Some(address) = origin.address {
            *self.addresses.entry(address).or_default() += 1;
        }
    }

    pub(crate) fn remove(&mut self, origin: &Origin) {
        subtract(&mut self.connections, origin.connection);
        subtract(&mut self.addresses, origin.address);
    }

    /// The number of connections and addresses that have state here.
    pub(crate) fn kept(&self) -> usize {
        self.connections.len() + self.addresses.len()
    }
}

fn count<K: Eq + Hash>(counts: &HashMap<K, usize>, key: Option<K>) -> usize {
    key.and_then(|key| counts.get(&key).copied()).unwrap_or(0)
}

fn subtract<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: Option<K>) {
    if let Some(key) = key
        && let Some(count) = counts.get_mut(&key)
    {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one_peer() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(
            network(ip("2001:db8:1:2:3:4:5:6")),
            network(ip("2001:db8:1:2::1"))
        );
        assert_ne!(
            network(ip("2001:db8:1:2::1")),
            network(ip("2001:db8:1:3::1"))
        );
        assert_eq!(network(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
        assert_ne!(network(ip("192.0.2.1")), network(ip("192.0.2.2")));
    }
}
