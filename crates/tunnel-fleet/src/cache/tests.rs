//! Updates in, routes out.

use super::*;
use crate::record::encode;

fn cache() -> Cache {
    Cache::new(Paths::new("home"))
}

fn paths() -> Paths {
    Paths::new("home")
}

fn gateway(name: &str, revision: u64, record: GatewayRecord) -> Entry {
    Entry {
        key: paths().gateway(name, &format!("{name}-1")),
        value: encode(&record),
        revision,
    }
}

fn device(key: &str, name: &str, revision: u64) -> Entry {
    Entry {
        key: paths().device(key, name),
        value: encode(&DeviceRecord {
            incarnation: format!("{name}-1"),
            tunnels: 1,
            ..DeviceRecord::default()
        }),
        revision,
    }
}

fn puts(entries: impl IntoIterator<Item = Entry>) -> Update {
    Update::Changes {
        changes: entries.into_iter().map(Change::Put).collect(),
        revision: 0,
    }
}

fn delete(key: String) -> Update {
    Update::Changes {
        changes: vec![Change::Delete { key, revision: 0 }],
        revision: 0,
    }
}

/// The gateways of the routes to device 17, as gateway `own` sees them.
fn routes(cache: &Cache, own: &str, zone: Option<&str>, hop: &[(&str, HopState)]) -> Vec<String> {
    let hop = |incarnation: &Incarnation| {
        let mut known = hop.iter();
        let known = known.find(|(name, _)| incarnation.starts_with(name));
        known.map_or(HopState::Up, |(_, state)| *state)
    };
    let routes = cache.routes("17", own, zone, hop).into_iter();
    let name = |incarnation: Incarnation| {
        cache
            .gateway(&incarnation)
            .map(|state| state.name.to_string())
    };
    routes.filter_map(name).collect()
}

fn three() -> Cache {
    let mut cache = cache();
    cache.apply(Update::Snapshot {
        entries: vec![
            gateway("a", 1, GatewayRecord::default()),
            gateway("b", 2, GatewayRecord::default()),
            gateway("c", 3, GatewayRecord::default()),
            device("17", "a", 4),
            device("17", "b", 5),
            device("17", "c", 6),
        ],
        revision: 6,
    });
    cache
}

#[test]
fn the_newest_route_is_tried_first_and_the_own_one_is_not_a_route() {
    assert_eq!(routes(&three(), "x", None, &[]), ["c", "b", "a"]);
    assert_eq!(routes(&three(), "c", None, &[]), ["b", "a"]);
}

#[test]
fn a_silent_gateway_is_tried_after_those_that_answer_and_one_without_a_hop_last() {
    let hop = [("c", HopState::Silent), ("b", HopState::Down)];
    assert_eq!(routes(&three(), "x", None, &hop), ["a", "c", "b"]);
}

#[test]
fn the_same_zone_comes_before_others_and_a_draining_gateway_after_the_others_of_its_zone() {
    let mut cache = three();
    let near = |draining| GatewayRecord {
        zone: Some("near".into()),
        draining,
        ..GatewayRecord::default()
    };
    cache.apply(puts([
        gateway("a", 7, near(false)),
        gateway("b", 8, near(true)),
    ]));
    assert_eq!(routes(&cache, "x", Some("near"), &[]), ["a", "b", "c"]);
    assert_eq!(routes(&cache, "x", None, &[]), ["c", "a", "b"]);
}

#[test]
fn the_routes_of_a_gateway_that_lapsed_come_last_and_go_with_the_way_to_it() {
    let mut cache = three();
    let effects = cache.apply(delete(paths().gateway("c", "c-1")));
    assert_eq!(effects, [Effect::Lapsed("c-1".into())]);
    assert_eq!(routes(&cache, "x", None, &[]), ["b", "a", "c"]);
    let hop = [("c", HopState::Down)];
    assert_eq!(routes(&cache, "x", None, &hop), ["b", "a"]);
    cache.forget("c-1");
    assert_eq!(routes(&cache, "x", None, &[]), ["b", "a"]);
    assert_eq!(cache.lapsed(), HashSet::from(["c-1".into()]));
    let left = cache.left_behind("c-1");
    assert_eq!(left, [("17".to_owned(), "c".into(), 6)]);
    // Who lives is not forgotten.
    cache.forget("a-1");
    assert_eq!(routes(&cache, "x", None, &[]), ["b", "a"]);
}

#[test]
fn a_gateway_that_returns_does_not_revive_the_records_of_its_last_life() {
    let mut cache = three();
    cache.apply(delete(paths().gateway("c", "c-1")));
    let mut again = gateway("c", 9, GatewayRecord::default());
    again.key = paths().gateway("c", "c-2");
    cache.apply(puts([again]));
    let hop = [("c-1", HopState::Down)];
    assert_eq!(routes(&cache, "x", None, &hop), ["b", "a"]);
}

#[test]
fn an_earlier_life_of_a_gateway_is_forgotten_once_no_record_names_it() {
    let mut cache = three();
    cache.apply(delete(paths().gateway("c", "c-1")));
    let mut again = gateway("c", 9, GatewayRecord::default());
    again.key = paths().gateway("c", "c-2");
    cache.apply(puts([again]));
    assert_eq!(cache.forget_superseded(), [], "device 17 is still there");
    cache.apply(delete(paths().device("17", "c")));
    assert_eq!(cache.forget_superseded(), ["c-1".into()]);
    assert!(cache.gateway("c-1").is_none() && cache.gateway("c-2").is_some());
}

#[test]
fn a_route_that_was_absent_comes_back_with_its_next_record() {
    let mut cache = three();
    cache.mark_absent("17", "c-1");
    assert_eq!(routes(&cache, "x", None, &[]), ["b", "a"]);
    // The same record again, after a reconnect.
    cache.apply(puts([device("17", "c", 6)]));
    assert_eq!(routes(&cache, "x", None, &[]), ["b", "a"]);
    cache.apply(puts([device("17", "c", 7)]));
    assert_eq!(routes(&cache, "x", None, &[]), ["c", "b", "a"]);
}

#[test]
fn a_snapshot_replaces_all_that_was_known() {
    let mut cache = three();
    cache.apply(Update::Lost(DirectoryError::Unavailable("away".into())));
    assert!(cache.is_stale());
    let effects = cache.apply(Update::Snapshot {
        entries: vec![
            gateway("a", 1, GatewayRecord::default()),
            device("17", "a", 4),
            device("18", "a", 7),
        ],
        revision: 9,
    });
    assert!(!cache.is_stale());
    assert!(effects.contains(&Effect::Answers));
    assert!(effects.contains(&Effect::Lapsed("b-1".into())));
    assert!(effects.contains(&Effect::Routes("18".into())));
    assert_eq!(routes(&cache, "x", None, &[]), ["a"]);
}

#[test]
fn what_is_lost_meanwhile_stays_as_it_was() {
    let mut cache = three();
    let away = || Update::Lost(DirectoryError::Unavailable("away".into()));
    assert_eq!(cache.apply(away()), []);
    assert_eq!(routes(&cache, "x", None, &[]), ["c", "b", "a"]);
    cache.learn("new", "b", &"b-1".into());
    assert_eq!(cache.records("new").len(), 1);
}

#[test]
fn a_denial_that_a_gateway_told_of_holds_until_the_directory_has_it_or_it_is_over() {
    let mut cache = cache();
    let denial = Denial {
        reason: "stolen".into(),
        ..Denial::default()
    };
    let now = SystemTime::now();
    assert!(cache.told("17", Some(denial.clone())));
    assert!(!cache.told("17", Some(denial.clone())), "no news");
    assert_eq!(cache.denial("17", now), Some(&denial));
    let entry = Entry {
        key: paths().denial("17"),
        value: encode(&denial),
        revision: 3,
    };
    assert_eq!(cache.apply(puts([entry]))[0], Effect::Denied("17".into()));
    let effects = cache.apply(delete(paths().denial("17")));
    assert_eq!(effects, [Effect::Allowed("17".into())]);
    assert_eq!(cache.denial("17", now), None);
}

#[test]
fn records_that_make_no_sense_are_left_out() {
    let mut cache = cache();
    let nonsense = |key: String| Entry {
        key,
        value: bytes::Bytes::from_static(b"?"),
        revision: 1,
    };
    let effects = cache.apply(puts([
        nonsense(paths().gateway("a", "a-1")),
        nonsense(paths().device("17", "a")),
        nonsense(paths().owner("17")),
        nonsense(paths().denial("17")),
        nonsense("/tunnel/1/home/future/17".into()),
    ]));
    assert_eq!(effects, [Effect::Answers]);
}
