//! What several gateways have answered, as one answer. No I/O.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use crate::admin::api;

/// The devices of one page of each gateway, at most `size`, and whether there are more.
///
/// A page that is not the last one of its gateway says nothing of the keys after its last key. So the merged page ends
/// where the first of these pages ends:
///
/// ```text
/// edge-1: a c e (more)    ends at e
/// edge-2: b c d (more)    ends at d
/// edge-3: c               all there is
/// merged: a b c d (more)  c with its tunnels at all three; e may be at edge-2 too, and comes with the next page
/// ```
///
/// The gateway whose page ends there has filled it, so the merged page is full too.
pub(super) fn page(
    pages: Vec<(Arc<str>, api::ListResponse)>,
    size: usize,
) -> (Vec<api::Device>, bool) {
    let unfinished = pages
        .iter()
        .filter(|(_, page)| !page.next_page_token.is_empty());
    let ends = unfinished.filter_map(|(_, page)| page.devices.last());
    let end = ends.map(|device| device.key.clone()).min();
    let mut devices = BTreeMap::new();
    for (gateway, page) in pages {
        for device in page.devices {
            if end.as_ref().is_some_and(|end| device.key > *end) {
                break;
            }
            let device = at(device, &gateway);
            match devices.entry(device.key.clone()) {
                Entry::Vacant(entry) => drop(entry.insert(device)),
                Entry::Occupied(mut entry) => add(entry.get_mut(), device),
            }
        }
    }
    let more = end.is_some() || devices.len() > size;
    (devices.into_values().take(size).collect(), more)
}

/// Names the gateway of a device's tunnels.
pub(super) fn at(mut device: api::Device, gateway: &str) -> api::Device {
    for tunnel in &mut device.tunnels {
        gateway.clone_into(&mut tunnel.gateway);
    }
    device
}

/// A time, for comparisons. No time is the earliest.
fn order(time: Option<prost_types::Timestamp>) -> Option<(i64, i32)> {
    time.map(|time| (time.seconds, time.nanos))
}

/// Adds what another gateway knows of a device.
fn add(device: &mut api::Device, other: api::Device) {
    device.state = std::cmp::max_by_key(device.state(), other.state(), rank).into();
    device.tunnels.extend(other.tunnels);
    device.tunnels.sort_by_key(|tunnel| order(tunnel.opened_at));
    device.last_seen = std::cmp::max_by_key(device.last_seen, other.last_seen, |t| order(*t));
    if order(other.last_error_at) > order(device.last_error_at) {
        device.last_error = other.last_error;
        device.last_error_at = other.last_error_at;
    }
    device.denial = device.denial.take().or(other.denial);
}

/// Which state of two counts.
fn rank(state: &api::State) -> u8 {
    match state {
        api::State::Unspecified => 0,
        api::State::Away => 1,
        api::State::Draining => 2,
        api::State::Connected => 3,
        api::State::Denied => 4,
    }
}

/// The stats of the fleet: those of this gateway, of the others that have answered, and rows for the rest.
/// `devices` is the number of devices that are connected somewhere.
pub(super) fn stats(
    mut all: api::StatsResponse,
    others: Vec<api::StatsResponse>,
    rest: Vec<api::GatewayStats>,
    devices: u64,
) -> api::StatsResponse {
    let has_limit = all.memory_budget > 0 && others.iter().all(|other| other.memory_budget > 0);
    for other in others {
        all.tunnels_open += other.tunnels_open;
        all.devices_denied = all.devices_denied.max(other.devices_denied);
        all.calls_in_flight += other.calls_in_flight;
        all.tunnels_total += other.tunnels_total;
        all.calls_total += other.calls_total;
        all.bytes_sent += other.bytes_sent;
        all.bytes_received += other.bytes_received;
        all.messages_sent += other.messages_sent;
        all.messages_received += other.messages_received;
        all.memory_used += other.memory_used;
        all.memory_budget += other.memory_budget;
        all.gateways.extend(other.gateways);
    }
    if !has_limit {
        all.memory_budget = 0;
    }
    all.devices_connected = devices;
    all.gateways.extend(rest);
    all.gateways.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// All denials, each once, in the order of their keys.
pub(super) fn denials(all: impl IntoIterator<Item = api::Denial>) -> Vec<api::Denial> {
    let mut denials = BTreeMap::new();
    for denial in all {
        denials.entry(denial.key.clone()).or_insert(denial);
    }
    denials.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    fn device(key: &str, state: api::State, tunnels: &[(&str, i64)]) -> api::Device {
        let tunnel = |(id, opened_at): &(&str, i64)| api::Tunnel {
            id: (*id).to_owned(),
            opened_at: time(*opened_at),
            ..api::Tunnel::default()
        };
        api::Device {
            key: key.to_owned(),
            state: state.into(),
            tunnels: tunnels.iter().map(tunnel).collect(),
            ..api::Device::default()
        }
    }

    fn listed(gateway: &str, keys: &str, more: bool) -> (Arc<str>, api::ListResponse) {
        let device = |key: &str| device(key, api::State::Connected, &[(gateway, 0)]);
        let page = api::ListResponse {
            devices: keys.split_whitespace().map(device).collect(),
            next_page_token: if more { "more".into() } else { String::new() },
            unreachable: Vec::new(),
        };
        (gateway.into(), page)
    }

    fn keys(devices: &[api::Device]) -> String {
        let keys: Vec<_> = devices.iter().map(|device| &*device.key).collect();
        keys.join(" ")
    }

    #[test]
    fn a_page_ends_where_the_first_unfinished_page_ends() {
        let pages = vec![
            listed("1", "a c e", true),
            listed("2", "b c d", true),
            listed("3", "c z", false),
        ];
        let (devices, more) = page(pages.clone(), 10);
        assert_eq!((&*keys(&devices), more), ("a b c d", true));
        let gateways = devices[2].tunnels.iter().map(|tunnel| &*tunnel.gateway);
        assert_eq!(gateways.collect::<Vec<_>>(), ["1", "2", "3"]);
        let (devices, more) = page(pages, 3);
        assert_eq!((&*keys(&devices), more), ("a b c", true));
    }

    #[test]
    fn finished_pages_are_merged_to_their_end() {
        let pages = || vec![listed("1", "a c", false), listed("2", "b", false)];
        let (devices, more) = page(pages(), 3);
        assert_eq!((&*keys(&devices), more), ("a b c", false));
        let (devices, more) = page(pages(), 2);
        assert_eq!((&*keys(&devices), more), ("a b", true));
        assert_eq!(page(Vec::new(), 2), (Vec::new(), false));
    }

    /// Walks over all pages of gateways that have these keys, and compares with the keys themselves.
    #[test]
    fn no_key_is_left_out_or_comes_twice() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let gateways: Vec<Vec<String>> = (0..3)
                .map(|_| {
                    let some = (0..60).filter(|_| random.u8(..) < 100);
                    some.map(|number| format!("{number:02}")).collect()
                })
                .collect();
            let size = random.usize(1..20);
            let mut found = Vec::new();
            loop {
                let last = found.last().cloned().unwrap_or_default();
                let pages = gateways.iter().enumerate().map(|(number, keys)| {
                    let rest: Vec<_> = keys.iter().filter(|key| **key > last).cloned().collect();
                    let more = rest.len() > size;
                    let page = rest[..rest.len().min(size)].join(" ");
                    listed(&number.to_string(), &page, more)
                });
                let (devices, more) = page(pages.collect(), size);
                assert!(!more || devices.len() == size, "an unfinished page is full");
                found.extend(devices.into_iter().map(|device| device.key));
                if !more {
                    break;
                }
            }
            let mut all: Vec<_> = gateways.concat();
            all.sort();
            all.dedup();
            assert_eq!(found, all);
        }
    }

    #[test]
    fn a_device_at_two_gateways_is_one_with_the_tunnels_of_both() {
        let mut one = device("a", api::State::Draining, &[("old", 1), ("new", 3)]);
        (one.last_error, one.last_error_at, one.last_seen) = ("first".into(), time(5), time(9));
        let mut other = device("a", api::State::Connected, &[("middle", 2)]);
        (other.last_error, other.last_error_at) = ("last".into(), time(6));
        for (mut device, more) in [(one.clone(), other.clone()), (other, one)] {
            add(&mut device, more);
            let ids = device.tunnels.iter().map(|tunnel| &*tunnel.id);
            assert_eq!(ids.collect::<Vec<_>>(), ["old", "middle", "new"]);
            assert_eq!(device.state(), api::State::Connected);
            assert_eq!((&*device.last_error, device.last_seen), ("last", time(9)));
        }
    }

    #[test]
    fn stats_are_sums_with_a_row_for_each_gateway() {
        let stats_of = |name: &str, tunnels, budget| api::StatsResponse {
            tunnels_open: tunnels,
            devices_connected: tunnels,
            devices_denied: tunnels,
            memory_budget: budget,
            gateways: vec![api::GatewayStats {
                name: name.to_owned(),
                reachable: true,
                ..api::GatewayStats::default()
            }],
            ..api::StatsResponse::default()
        };
        let silent = api::GatewayStats {
            name: "b".to_owned(),
            ..api::GatewayStats::default()
        };
        let all = stats(
            stats_of("c", 2, 10),
            vec![stats_of("a", 3, 20)],
            vec![silent],
            4,
        );
        assert_eq!((all.tunnels_open, all.devices_connected), (5, 4));
        assert_eq!((all.devices_denied, all.memory_budget), (3, 30));
        let rows = all.gateways.iter().map(|row| (&*row.name, row.reachable));
        assert_eq!(
            rows.collect::<Vec<_>>(),
            [("a", true), ("b", false), ("c", true)]
        );
        let no_limit = stats(stats_of("c", 2, 10), vec![stats_of("a", 3, 0)], vec![], 4);
        assert_eq!(no_limit.memory_budget, 0);
    }
}
