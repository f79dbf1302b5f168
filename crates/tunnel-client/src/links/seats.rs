//! At which instance of a gateway the tunnel of each link is, where a load balancer has several behind one address.
//!
//! The links want tunnels to as many instances as there are, up to their own number. A tunnel is *spare* if an older
//! one is at the same instance and more instances could be reached. Its link then looks for another instance.

use std::sync::Arc;
use std::time::Duration;

use tunnel_tonic::{TunnelId, TunnelInfo};

/// How often another instance is looked for in a row, by all links of the gateway together.
const TRIES: u32 = 8;

/// The time between further tries. A balancer that chooses by the device's address never gives another instance.
const SHORTEST_PAUSE: Duration = Duration::from_secs(5 * 60);
const LONGEST_PAUSE: Duration = Duration::from_secs(10 * 60);

#[derive(Debug)]
pub(crate) struct Seats {
    /// By the index of the link. `None` if it has no tunnel, or one to a peer that does not name itself.
    links: Vec<Option<Seat>>,
    /// The number of instances, as one of them said last.
    instances: usize,
    /// Tries since the links were last where they want to be, or one of them got there.
    tries: u32,
}

#[derive(Debug, PartialEq, Eq)]
struct Seat {
    instance: Arc<str>,
    tunnel: TunnelId,
}

impl Seats {
    /// Of a number of links.
    pub(crate) fn new(links: usize) -> Self {
        Self {
            links: (0..links).map(|_| None).collect(),
            instances: 0,
            tries: 0,
        }
    }

    /// Notes the number of instances that there are.
    pub(crate) fn set_instances(&mut self, instances: usize) {
        if std::mem::replace(&mut self.instances, instances) != instances {
            self.tries = 0;
        }
    }

    /// Notes that a link has a tunnel.
    pub(crate) fn sit(&mut self, link: usize, tunnel: &TunnelInfo) {
        self.links[link] = tunnel.instance().map(|instance| Seat {
            instance: instance.into(),
            tunnel: tunnel.id(),
        });
        if self.occupied() >= self.wanted() {
            self.tries = 0;
        }
    }

    /// Notes that a link has no tunnel.
    pub(crate) fn leave(&mut self, link: usize) {
        self.links[link] = None;
    }

    /// Gives a link this tunnel, if no other link is at its instance.
    pub(crate) fn try_move(&mut self, link: usize, tunnel: &TunnelInfo) -> bool {
        let mut others = self.links.iter().enumerate().filter(|(n, _)| *n != link);
        let taken = others.any(|(_, seat)| is_at(seat, tunnel.instance()));
        if taken || tunnel.instance().is_none() {
            return false;
        }
        self.tries = 0;
        self.sit(link, tunnel);
        true
    }

    /// Whether a link should look for another instance.
    pub(crate) fn is_spare(&self, link: usize) -> bool {
        let Some(own) = &self.links[link] else {
            return false;
        };
        let mut others = self.links.iter().flatten();
        let is_second = others.any(|o| o.instance == own.instance && o.tunnel < own.tunnel);
        is_second && self.occupied() < self.wanted()
    }

    /// Counts a try. Returns how long to wait before it; at first it is `soon`.
    pub(crate) fn next_try(&mut self, soon: Duration) -> Duration {
        self.tries = self.tries.saturating_add(1);
        match self.tries <= TRIES {
            true => soon,
            false => SHORTEST_PAUSE + (LONGEST_PAUSE - SHORTEST_PAUSE).mul_f64(fastrand::f64()),
        }
    }

    /// The number of instances that have a tunnel.
    fn occupied(&self) -> usize {
        let seats = self.links.iter().enumerate();
        let firsts = seats.filter(|(n, seat)| {
            let instance = seat.as_ref().map(|seat| &*seat.instance);
            instance.is_some() && !self.links[..*n].iter().any(|seat| is_at(seat, instance))
        });
        firsts.count()
    }

    /// The number of instances that should have one.
    fn wanted(&self) -> usize {
        self.links.len().min(self.instances)
    }
}

fn is_at(seat: &Option<Seat>, instance: Option<&str>) -> bool {
    let at = seat.as_ref().map(|seat| &*seat.instance);
    at.is_some() && at == instance
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::metadata::MetadataMap;
    use tunnel_tonic::Direction;

    fn tunnel(instance: Option<&str>) -> TunnelInfo {
        let info = TunnelInfo::new(Direction::Reverse, MetadataMap::new(), None, None);
        info.accepted(None, None, instance.map(Arc::from));
        info
    }

    /// Links whose tunnels were opened in this order.
    fn seats(instances: usize, tunnels: &[Option<&str>]) -> Seats {
        let mut seats = Seats::new(tunnels.len());
        seats.set_instances(instances);
        for (link, instance) in tunnels.iter().enumerate() {
            seats.sit(link, &tunnel(*instance));
        }
        seats
    }

    fn spare(seats: &Seats) -> Vec<bool> {
        (0..seats.links.len()).map(|n| seats.is_spare(n)).collect()
    }

    #[test]
    fn the_younger_of_two_tunnels_at_one_instance_is_spare_while_another_could_be_reached() {
        let [a, b] = [Some("a"), Some("b")];
        assert_eq!(spare(&seats(2, &[a, a])), [false, true]);
        assert_eq!(spare(&seats(2, &[a, b])), [false, false]);
        assert_eq!(spare(&seats(1, &[a, a])), [false, false]);
        assert_eq!(spare(&seats(5, &[a])), [false]);
        assert_eq!(spare(&seats(2, &[a, b, a])), [false; 3]);
        assert_eq!(spare(&seats(3, &[a, b, a])), [false, false, true]);
        assert_eq!(spare(&seats(9, &[None, None])), [false, false]);
        assert_eq!(spare(&seats(2, &[a, None, a])), [false, false, true]);
        // The order of the links does not matter.
        let mut seats = seats(2, &[a, a]);
        seats.sit(0, &tunnel(a));
        assert_eq!(spare(&seats), [true, false]);
        seats.leave(1);
        assert_eq!(spare(&seats), [false, false]);
    }

    #[test]
    fn a_link_moves_only_to_an_instance_where_no_other_link_is() {
        let mut seats = seats(3, &[Some("a"), Some("a"), Some("b")]);
        for instance in [Some("a"), Some("b"), None] {
            assert!(!seats.try_move(1, &tunnel(instance)), "{instance:?}");
        }
        assert!(seats.is_spare(1));
        assert!(seats.try_move(1, &tunnel(Some("c"))));
        assert!(!seats.is_spare(1));
        assert!(!seats.try_move(0, &tunnel(Some("c"))));
    }

    #[test]
    fn after_eight_tries_in_a_row_the_next_are_minutes_apart() {
        let soon = Duration::from_millis(1);
        let mut seats = seats(2, &[Some("a"), Some("a")]);
        let exhaust = |seats: &mut Seats| {
            for _ in 0..8 {
                assert_eq!(seats.next_try(soon), soon);
            }
            let pauses: Vec<_> = (0..100).map(|_| seats.next_try(soon)).collect();
            assert!(pauses.iter().all(|p| (300..=600).contains(&p.as_secs())));
            let apart = pauses.iter().max().expect("some") > &Duration::from_secs(400);
            assert!(apart && pauses.iter().min() < Some(&Duration::from_secs(500)));
        };
        exhaust(&mut seats);
        // A tunnel to the same instance brings nothing new.
        seats.sit(1, &tunnel(Some("a")));
        seats.set_instances(2);
        assert!(seats.next_try(soon) > soon);
        // Another number of instances does, and so does success.
        seats.set_instances(3);
        exhaust(&mut seats);
        assert!(seats.try_move(1, &tunnel(Some("b"))));
        exhaust(&mut seats);
    }
}
