//! What one address may take of a listener, so that it leaves something for the others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// What counts as one address: all of IPv4, the first 64 bits of IPv6.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

/// Counts what addresses take.
#[derive(Debug)]
pub(super) struct Shares {
    max: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// One thing that an address has taken, until this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    shares: Arc<Shares>,
    network: IpAddr,
}

impl Shares {
    /// Each address may take a quarter of `all`.
    pub(super) fn of(all: usize) -> Arc<Self> {
        Arc::new(Self {
            max: (all / 4).max(1),
            taken: Mutex::default(),
        })
    }

    /// Takes one; `None` if the address has its share.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Share> {
        let network = network(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(network).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Share {
            shares: self.clone(),
            network,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let taken = &self.shares.taken;
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn addresses_of_ipv6_are_counted_by_network() {
        let network = |text| network(ip(text));
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:0:0:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
        assert_ne!(network("10.0.0.2"), network("10.0.0.1"));
    }

    #[test]
    fn an_address_has_a_quarter_until_it_gives_some_back() {
        let shares = Shares::of(8);
        let first = shares.take(ip("2001:db8::1")).expect("the first");
        let _second = shares.take(ip("2001:db8::2")).expect("the second");
        assert!(shares.take(ip("2001:db8::3")).is_none());
        let _other = shares.take(ip("10.0.0.1")).expect("another address");
        drop(first);
        assert!(shares.take(ip("2001:db8::3")).is_some());
        assert_eq!(shares.taken.lock().expect("no panic").len(), 2);
    }
}
