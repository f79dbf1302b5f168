//! What a gateway knows of its fleet, and the order in which routes are tried.
//!
//! No I/O and no clock. The directory's updates come in, effects come out. While the directory is away the cache
//! goes on as it was, and says that it is [stale](Cache::is_stale).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use crate::directory::{Change, DirectoryError, Entry, Update};
use crate::record::{Denial, DeviceRecord, GatewayRecord, OwnerRecord, Path, Paths, decode};

/// A random name for one start of a gateway.
pub type Incarnation = Arc<str>;

/// A gateway of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayState {
    /// Its name.
    pub name: Arc<str>,
    /// What it says of itself.
    pub record: GatewayRecord,
    /// Whether the directory no longer has it: it has stopped, or is cut off from the directory.
    pub lapsed: bool,
}

/// The tunnels of a key at one gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The name of the gateway.
    pub gateway: Arc<str>,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// What the gateway says of the device.
    pub record: DeviceRecord,
    /// The revision of the record.
    pub(crate) revision: u64,
    /// Whether the gateway has said since then that the device is not there.
    absent: bool,
}

/// What is known of the way to a gateway, without the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HopState {
    /// It answers.
    Up,
    /// It has been silent.
    Silent,
    /// There is no tunnel to it.
    Down,
}

/// What must be done after an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The routes of a key have changed.
    Routes(String),
    /// A gateway has come, or its record has changed.
    Gateway(Incarnation),
    /// A gateway has left the directory.
    Lapsed(Incarnation),
    /// A key was denied.
    Denied(String),
    /// A key may connect again.
    Allowed(String),
    /// An exclusive key has another owner, or none.
    Owner(String),
    /// The directory answers again, or for the first time.
    Answers,
}

/// What a gateway knows of its fleet.
#[derive(Debug)]
pub(crate) struct Cache {
    paths: Paths,
    gateways: HashMap<Incarnation, GatewayState>,
    routes: HashMap<String, Vec<Route>>,
    owners: HashMap<String, (OwnerRecord, u64)>,
    denials: HashMap<String, Denial>,
    /// Denials that another gateway has told of, which the directory may not have yet.
    told: HashMap<String, Denial>,
    /// Why the directory does not answer; `None` if it does.
    lost: Option<DirectoryError>,
}

impl Cache {
    pub(crate) fn new(paths: Paths) -> Self {
        Self {
            paths,
            gateways: HashMap::new(),
            routes: HashMap::new(),
            owners: HashMap::new(),
            denials: HashMap::new(),
            told: HashMap::new(),
            lost: Some(DirectoryError::Unavailable(
                "it has not answered yet".into(),
            )),
        }
    }

    /// Whether the directory does not answer, so that what is known may be out of date.
    pub(crate) fn is_stale(&self) -> bool {
        self.lost.is_some()
    }

    /// Why the directory does not answer.
    pub(crate) fn lost(&self) -> Option<&DirectoryError> {
        self.lost.as_ref()
    }

    pub(crate) fn apply(&mut self, update: Update) -> Vec<Effect> {
        let mut effects = Vec::new();
        match update {
            Update::Lost(error) => {
                self.lost = Some(error);
                return effects;
            }
            Update::Snapshot { entries, .. } => self.replace(entries, &mut effects),
            Update::Changes { changes, .. } => {
                for change in changes {
                    match change {
                        Change::Put(entry) => self.put(entry, &mut effects),
                        Change::Delete { key, .. } => self.delete(&key, &mut effects),
                    }
                }
            }
        }
        if self.lost.take().is_some() {
            effects.push(Effect::Answers);
        }
        effects
    }

    /// Takes a snapshot: what is not in it is deleted.
    fn replace(&mut self, entries: Vec<Entry>, effects: &mut Vec<Effect>) {
        let kept: HashSet<&str> = entries.iter().map(|entry| &*entry.key).collect();
        for path in self.known_paths() {
            if !kept.contains(&*path) {
                self.delete(&path, effects);
            }
        }
        for entry in entries {
            self.put(entry, effects);
        }
    }

    fn known_paths(&self) -> Vec<String> {
        let paths = &self.paths;
        let live = self.gateways.iter().filter(|(_, state)| !state.lapsed);
        let gateways = live.map(|(incarnation, state)| paths.gateway(&state.name, incarnation));
        let routes = self.routes.iter().flat_map(|(key, routes)| {
            let path = |route: &Route| paths.device(key, &route.gateway);
            routes.iter().map(path).collect::<Vec<_>>()
        });
        let owners = self.owners.keys().map(|key| paths.owner(key));
        let denials = self.denials.keys().map(|key| paths.denial(key));
        let all = gateways.chain(routes).chain(owners).chain(denials);
        all.collect()
    }

    fn put(&mut self, entry: Entry, effects: &mut Vec<Effect>) {
        let Entry {
            key: path,
            value,
            revision,
        } = entry;
        match self.paths.parse(&path) {
            Some(Path::Gateway {
                gateway,
                incarnation,
            }) => {
                let Some(record) = decode(&value) else { return };
                let incarnation: Incarnation = incarnation.into();
                let state = GatewayState {
                    name: gateway.into(),
                    record,
                    lapsed: false,
                };
                let old = self.gateways.insert(incarnation.clone(), state.clone());
                if old.as_ref() != Some(&state) {
                    effects.push(Effect::Gateway(incarnation));
                }
            }
            Some(Path::Device { key, gateway }) => {
                let Some(record): Option<DeviceRecord> = decode(&value) else {
                    return;
                };
                let route = Route {
                    gateway: gateway.into(),
                    incarnation: record.incarnation.as_str().into(),
                    record,
                    revision,
                    absent: false,
                };
                let routes = self.routes.entry(key.clone()).or_default();
                let old = routes.iter().position(|route| &*route.gateway == gateway);
                match old.map(|at| &mut routes[at]) {
                    Some(old) if old.revision == revision => return,
                    Some(old) => *old = route,
                    None => routes.push(route),
                }
                effects.push(Effect::Routes(key));
            }
            Some(Path::Owner { key }) => {
                let Some(owner) = decode(&value) else { return };
                let old = self.owners.insert(key.clone(), (owner, revision));
                if old.is_none_or(|(_, old)| old != revision) {
                    effects.push(Effect::Owner(key));
                }
            }
            Some(Path::Denial { key }) => {
                let Some(denial) = decode(&value) else { return };
                self.told.remove(&key);
                if self.denials.insert(key.clone(), denial).is_none() {
                    effects.push(Effect::Denied(key));
                }
            }
            None => {}
        }
    }

    fn delete(&mut self, path: &str, effects: &mut Vec<Effect>) {
        match self.paths.parse(path) {
            Some(Path::Gateway { incarnation, .. }) => {
                if let Some((incarnation, _)) = self.gateways.get_key_value(incarnation) {
                    let incarnation = incarnation.clone();
                    if let Some(state) = self.gateways.get_mut(&incarnation) {
                        state.lapsed = true;
                    }
                    effects.push(Effect::Lapsed(incarnation));
                }
            }
            Some(Path::Device { key, gateway }) => {
                let Some(routes) = self.routes.get_mut(&key) else {
                    return;
                };
                routes.retain(|route| &*route.gateway != gateway);
                if routes.is_empty() {
                    self.routes.remove(&key);
                }
                effects.push(Effect::Routes(key));
            }
            Some(Path::Owner { key }) => {
                self.owners.remove(&key);
                effects.push(Effect::Owner(key));
            }
            Some(Path::Denial { key }) => {
                self.denials.remove(&key);
                self.told.remove(&key);
                effects.push(Effect::Allowed(key));
            }
            None => {}
        }
    }

    /// The routes of a key in the order in which they are tried, by incarnation, without those of gateway `own`.
    ///
    /// First those whose gateway answers; then those whose gateway the directory has; then the same zone; then gateways that
    /// are not about to stop; then the newest record. A route is left out if its gateway has said that the device
    /// is not there, and if both the directory and the way to the gateway are gone.
    pub(crate) fn routes(
        &self,
        key: &str,
        own: &str,
        zone: Option<&str>,
        hop: impl Fn(&Incarnation) -> HopState,
    ) -> Vec<Incarnation> {
        let Some(routes) = self.routes.get(key) else {
            return Vec::new();
        };
        let ranked = routes.iter().filter_map(|route| {
            let gateway = self.gateways.get(&route.incarnation)?;
            let hop = hop(&route.incarnation);
            if &*route.gateway == own || route.absent || (gateway.lapsed && hop == HopState::Down) {
                return None;
            }
            let far = zone.is_some() && gateway.record.zone.as_deref() != zone;
            let rank = (hop, gateway.lapsed, far, gateway.record.draining);
            Some(((rank, std::cmp::Reverse(route.revision)), route))
        });
        let mut ranked: Vec<_> = ranked.collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        let incarnations = ranked
            .into_iter()
            .map(|(_, route)| route.incarnation.clone());
        incarnations.collect()
    }

    /// All records of a key.
    pub(crate) fn records(&self, key: &str) -> &[Route] {
        self.routes.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// All keys with their records.
    pub(crate) fn devices(&self) -> impl Iterator<Item = (&String, &Vec<Route>)> {
        self.routes.iter()
    }

    /// The number of keys that have a record.
    pub(crate) fn len(&self) -> usize {
        self.routes.len()
    }

    /// Notes that a gateway does not have the device. The route comes back with its next record.
    pub(crate) fn mark_absent(&mut self, key: &str, incarnation: &str) {
        let routes = self.routes.get_mut(key).into_iter().flatten();
        for route in routes.filter(|route| &*route.incarnation == incarnation) {
            route.absent = true;
        }
    }

    /// Notes a route that a gateway has told of by itself, while the directory does not answer.
    pub(crate) fn learn(&mut self, key: &str, gateway: &str, incarnation: &Incarnation) {
        let routes = self.routes.entry(key.to_owned()).or_default();
        routes.retain(|route| &*route.gateway != gateway);
        routes.push(Route {
            gateway: gateway.into(),
            incarnation: incarnation.clone(),
            record: DeviceRecord {
                incarnation: incarnation.to_string(),
                tunnels: 1,
                ..DeviceRecord::default()
            },
            revision: 0,
            absent: false,
        });
    }

    pub(crate) fn gateway(&self, incarnation: &str) -> Option<&GatewayState> {
        self.gateways.get(incarnation)
    }

    pub(crate) fn gateways(&self) -> impl Iterator<Item = (&Incarnation, &GatewayState)> {
        self.gateways.iter()
    }

    /// Forgets a gateway that has left the directory. Its routes are found no more.
    pub(crate) fn forget(&mut self, incarnation: &str) {
        if self.gateways.get(incarnation).is_some_and(|g| g.lapsed) {
            self.gateways.remove(incarnation);
        }
    }

    /// Forgets incarnations of gateways that have joined again since, once no record names them. Returns them.
    pub(crate) fn forget_superseded(&mut self) -> Vec<Incarnation> {
        let live = self.gateways.values().filter(|state| !state.lapsed);
        let live: HashSet<&Arc<str>> = live.map(|state| &state.name).collect();
        let routes = self.routes.values().flatten();
        let named: HashSet<&Incarnation> = routes.map(|route| &route.incarnation).collect();
        let superseded = self.gateways.iter().filter(|(incarnation, state)| {
            state.lapsed && live.contains(&state.name) && !named.contains(incarnation)
        });
        let superseded: Vec<Incarnation> = superseded.map(|(name, _)| name.clone()).collect();
        for incarnation in &superseded {
            self.gateways.remove(incarnation);
        }
        superseded
    }

    /// The records of a gateway that no longer lives: key and revision.
    pub(crate) fn left_behind(&self, incarnation: &str) -> Vec<(String, Arc<str>, u64)> {
        let of = |(key, routes): (&String, &Vec<Route>)| {
            let mut routes = routes.iter();
            let route = routes.find(|route| &*route.incarnation == incarnation)?;
            Some((key.clone(), route.gateway.clone(), route.revision))
        };
        self.routes.iter().filter_map(of).collect()
    }

    /// The incarnations that records name and that do not live.
    pub(crate) fn lapsed(&self) -> HashSet<Incarnation> {
        let routes = self.routes.values().flatten();
        let dead =
            |incarnation: &Incarnation| self.gateways.get(incarnation).is_none_or(|g| g.lapsed);
        let named = routes.map(|route| route.incarnation.clone());
        named.filter(dead).collect()
    }

    /// The owner of an exclusive key, and the revision of its record.
    pub(crate) fn owner(&self, key: &str) -> Option<&(OwnerRecord, u64)> {
        self.owners.get(key)
    }

    /// Why a key may not connect now.
    pub(crate) fn denial(&self, key: &str, now: SystemTime) -> Option<&Denial> {
        let denial = self.denials.get(key).or_else(|| self.told.get(key));
        denial.filter(|denial| denial.holds(now))
    }

    /// All denials that hold.
    pub(crate) fn denials(&self, now: SystemTime) -> Vec<(String, Denial)> {
        let all = self.denials.iter().chain(&self.told);
        let all = all.filter(|(_, denial)| denial.holds(now));
        all.map(|(key, denial)| (key.clone(), denial.clone()))
            .collect()
    }

    /// Notes a denial that another gateway tells of, or that it is over. Returns whether it is news.
    pub(crate) fn told(&mut self, key: &str, denial: Option<Denial>) -> bool {
        match denial {
            Some(_) if self.denials.contains_key(key) => false,
            Some(denial) => self.told.insert(key.to_owned(), denial).is_none(),
            None => {
                let listed = self.denials.remove(key).is_some();
                self.told.remove(key).is_some() || listed
            }
        }
    }
}

#[cfg(test)]
mod tests;
