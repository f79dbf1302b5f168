//! Tests of how calls pick tunnels.

use std::collections::{HashMap, HashSet};

use tonic::metadata::MetadataMap;
use tunnel_core::Config;

use super::*;
use crate::{Direction, NetworkRole, Tunnel, TunnelInfo};

fn tunnel() -> TunnelChannel {
    let info = TunnelInfo::new(Direction::Reverse, MetadataMap::new(), None, None);
    let (tunnel, ..) = Tunnel::new(NetworkRole::Server, Config::default(), info);
    tunnel.channel()
}

fn pool_of(count: usize) -> (Pool, Vec<TunnelChannel>) {
    let pool = Pool::default();
    let tunnels: Vec<_> = (0..count).map(|_| tunnel()).collect();
    tunnels.iter().for_each(|tunnel| pool.join(tunnel));
    (pool, tunnels)
}

fn picks(pool: &Pool, balance: Balance, calls: usize) -> HashMap<TunnelId, usize> {
    let mut picks = HashMap::new();
    for _ in 0..calls {
        let channel = pool
            .pick(balance, SUSPECT_AFTER, &HashSet::new())
            .expect("there are tunnels");
        *picks.entry(channel.id()).or_default() += 1;
    }
    picks
}

fn tried(ids: &[TunnelId]) -> HashSet<TunnelId> {
    ids.iter().copied().collect()
}

#[test]
fn round_robin_picks_each_tunnel_in_turn() {
    let (pool, tunnels) = pool_of(7);
    let picks = picks(&pool, Balance::RoundRobin, 70);
    for tunnel in tunnels {
        assert_eq!(picks[&tunnel.id()], 10);
    }
}

#[test]
fn an_idle_pool_spreads_calls_by_chance_where_the_fewest_calls_decide() {
    let (pool, tunnels) = pool_of(4);
    let picks = picks(&pool, Balance::FewestCalls, 1000);
    // With a thousand picks, a tunnel that is never picked shows a fault.
    assert_eq!(picks.len(), tunnels.len());
}

#[test]
fn an_empty_pool_has_nothing_to_pick() {
    let (pool, _) = pool_of(0);
    for balance in [Balance::RoundRobin, Balance::FewestCalls] {
        assert!(pool.pick(balance, SUSPECT_AFTER, &HashSet::new()).is_none());
    }
}

#[test]
fn a_tunnel_that_was_tried_is_not_picked_again() {
    let (pool, tunnels) = pool_of(3);
    let ids: Vec<_> = tunnels.iter().map(|tunnel| tunnel.id()).collect();
    for balance in [Balance::RoundRobin, Balance::FewestCalls] {
        for _ in 0..10 {
            let left = pool
                .pick(balance, SUSPECT_AFTER, &tried(&ids[..2]))
                .expect("one is left");
            assert_eq!(left.id(), ids[2]);
        }
        assert!(pool.pick(balance, SUSPECT_AFTER, &tried(&ids)).is_none());
    }
}

/// Calls that some full tunnels refused are spread over all the others.
#[test]
fn a_call_that_moves_finds_any_of_the_others() {
    let (pool, tunnels) = pool_of(5);
    let full = tried(&[tunnels[0].id()]);
    for balance in [Balance::RoundRobin, Balance::FewestCalls] {
        let found: HashSet<_> = (0..1000)
            .filter_map(|_| Some(pool.pick(balance, SUSPECT_AFTER, &full)?.id()))
            .collect();
        assert_eq!(found.len(), 4, "{balance:?}");
        assert!(found.is_disjoint(&full));
    }
}

#[test]
fn tunnels_leave_in_any_order_and_the_others_are_still_picked() {
    let (pool, tunnels) = pool_of(20);
    let (leaving, staying): (Vec<_>, Vec<_>) = tunnels.iter().partition(|t| t.id().value() % 3 > 0);
    for tunnel in leaving {
        pool.leave(tunnel.id());
        // A second removal has no effect.
        pool.leave(tunnel.id());
    }
    let staying: HashSet<_> = staying.iter().map(|tunnel| tunnel.id()).collect();
    let found = picks(&pool, Balance::RoundRobin, 100).into_keys().collect();
    assert_eq!(staying, found);
    for id in staying {
        pool.leave(id);
    }
    assert!(pool.is_empty());
}
