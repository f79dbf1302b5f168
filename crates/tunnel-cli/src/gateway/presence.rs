//! Which keys are connected now, and what is remembered of those that are not.
//!
//! One lock guards the state. A tunnel that opens or closes takes logarithmic time under it; a call takes the lock only
//! if its key has no tunnel. Changes are sent under the lock, so a subscriber's snapshot and the changes after it fit
//! together.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use futures::StreamExt as _;
use tokio::sync::broadcast;
use tunnel_server::{
    AcceptedTunnel, AffinityKey, EndReason, Report, Stats, TunnelError, TunnelEvent, TunnelEvents,
    TunnelId, TunnelInfo,
};

use super::change::{Change, What};
use super::deny::Denial;
use super::totals::Totals;
use crate::age;
use crate::listen::network;

/// The most keys that are remembered after their last tunnel.
const MAX_AWAY: usize = 100_000;

/// The most changes that wait for a slow subscriber.
const MAX_CHANGES: usize = 4096;

/// How many devices with their last errors are listed.
const MAX_ERRORS: usize = 20;

/// The most characters of an error that are remembered.
const MAX_ERROR: usize = 300;

/// Which keys are connected, and when the others were last seen.
#[derive(Debug)]
pub(crate) struct Presence {
    state: Mutex<State>,
    changes: broadcast::Sender<Arc<Change>>,
    max_away: usize,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<TunnelId, AcceptedTunnel>,
    /// By key: the connected and the away.
    devices: BTreeMap<Arc<str>, Device>,
    /// The keys without a tunnel. The first is forgotten first.
    away: BTreeMap<u64, Arc<str>>,
    next_place: u64,
    addresses: HashMap<IpAddr, usize>,
    /// The last errors of the devices that failed last, oldest first.
    errors: VecDeque<(Arc<str>, LastError)>,
    /// Of the closed tunnels, and the number of those that have opened.
    closed: Totals,
}

/// What is known of a key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Device {
    /// Oldest first. Empty: the device is away.
    pub(crate) tunnels: Vec<AcceptedTunnel>,
    /// When its last tunnel closed. `None`: it has tunnels, or never had one.
    pub(crate) last_seen: Option<SystemTime>,
    pub(crate) last_error: Option<LastError>,
    /// Its place among the away.
    place: Option<u64>,
}

/// Why a tunnel ended or did not open.
#[derive(Clone, Debug)]
pub(crate) struct LastError {
    pub(crate) at: SystemTime,
    pub(crate) text: String,
}

impl Default for Presence {
    fn default() -> Self {
        Self::remembering(MAX_AWAY)
    }
}

impl Presence {
    fn remembering(max_away: usize) -> Self {
        Self {
            state: Mutex::default(),
            changes: broadcast::Sender::new(MAX_CHANGES),
            max_away,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tunnel has opened. For the handler's hook `on_open`.
    pub(crate) fn opened(&self, tunnel: &AcceptedTunnel) {
        let mut state = self.lock();
        state.closed.tunnels += 1;
        state.open.insert(tunnel.id(), tunnel.clone());
        if let Some(address) = tunnel.peer_addr() {
            *state.addresses.entry(network(address.ip())).or_default() += 1;
        }
        if let Some(key) = tunnel.key() {
            state.update(key.as_str(), self.max_away, |device| {
                device.tunnels.push(tunnel.clone());
                device.last_seen = None;
            });
        }
        self.send(tunnel.info(), || What::Opened(tunnel.clone()));
    }

    /// A tunnel that had opened is closed. For the handler's hook `on_close`.
    pub(crate) fn closed(&self, info: &TunnelInfo, reason: &EndReason, stats: &Stats) {
        let text = short(&Report(reason).to_string());
        let mut state = self.lock();
        if state.open.remove(&info.id()).is_none() {
            return;
        }
        state.closed.add_traffic(stats);
        if let Some(address) = info.peer_addr() {
            state.leave(network(address.ip()));
        }
        if let Some(key) = info.key() {
            let now = SystemTime::now();
            state.update(key.as_str(), self.max_away, |device| {
                device.tunnels.retain(|tunnel| tunnel.id() != info.id());
                if device.tunnels.is_empty() {
                    device.last_seen = Some(now);
                }
            });
            if is_error(reason) {
                let text = text.clone();
                state.failed(key.as_str(), LastError { at: now, text });
            }
        }
        self.send(info, || What::Closed {
            info: info.clone(),
            reason: text,
            stats: Box::new(*stats),
        });
    }

    /// A tunnel was refused.
    fn refused(&self, info: &TunnelInfo, error: &TunnelError) {
        let text = match error {
            TunnelError::Refused(status) => short(status.message()),
            error => short(&Report(error).to_string()),
        };
        let mut state = self.lock();
        if let Some(key) = info.key() {
            state.update(key.as_str(), self.max_away, |_| {});
            let (at, text) = (SystemTime::now(), text.clone());
            state.failed(key.as_str(), LastError { at, text });
        }
        self.send(info, || What::Refused {
            peer: info.peer_addr(),
            reason: text,
        });
    }

    /// Notes the tunnels that the handler refuses, until it has gone: pass its `events()`.
    pub(crate) async fn follow(&self, mut events: TunnelEvents) {
        while let Some(event) = events.next().await {
            if let TunnelEvent::NotOpened { info, error, .. } = event {
                self.refused(&info, &error);
            }
        }
    }

    /// Tells those who watch that a key is denied.
    pub(crate) fn denied(&self, denial: &Denial) {
        let _ordered = self.lock();
        self.send_for(&denial.key, || What::Denied(denial.clone()));
    }

    /// Tells those who watch that a key is allowed again.
    pub(crate) fn allowed(&self, key: &str) {
        let _ordered = self.lock();
        self.send_for(key, || What::Allowed);
    }

    fn send(&self, info: &TunnelInfo, what: impl FnOnce() -> What) {
        self.send_for(info.key().map_or("", AffinityKey::as_str), what);
    }

    fn send_for(&self, key: &str, what: impl FnOnce() -> What) {
        if self.changes.receiver_count() > 0 {
            // Fails without subscribers.
            let _ = self.changes.send(Arc::new(Change {
                at: SystemTime::now(),
                key: key.into(),
                what: what(),
            }));
        }
    }

    /// The devices that are connected, in the order of their keys, and the changes from then on.
    pub(crate) fn subscribe(
        &self,
    ) -> (BTreeMap<Arc<str>, Device>, broadcast::Receiver<Arc<Change>>) {
        let state = self.lock();
        let connected = state.devices.iter().filter(|(_, d)| !d.tunnels.is_empty());
        let connected = connected.map(|(key, d)| (key.clone(), d.clone()));
        (connected.collect(), self.changes.subscribe())
    }

    /// The next devices in the order of their keys, after this one: connected or away, at most `limit`.
    pub(crate) fn devices_after(&self, key: &str, limit: usize) -> Vec<(Arc<str>, Device)> {
        let state = self.lock();
        let range = (Bound::Excluded(key), Bound::Unbounded);
        let devices = state.devices.range::<str, _>(range).take(limit);
        devices.map(|(key, d)| (key.clone(), d.clone())).collect()
    }

    /// What is known of a key.
    pub(crate) fn device(&self, key: &str) -> Option<Device> {
        self.lock().devices.get(key).cloned()
    }

    /// The last errors of the devices that failed last, the newest first.
    pub(crate) fn last_errors(&self) -> Vec<(Arc<str>, LastError)> {
        self.lock().errors.iter().rev().cloned().collect()
    }

    /// The sums of all tunnels, open and closed. Takes time for each open tunnel.
    pub(crate) fn totals(&self) -> Totals {
        let (mut totals, open) = {
            let state = self.lock();
            let mut totals = state.closed;
            totals.devices_connected = (state.devices.len() - state.away.len()) as u64;
            (totals, state.open.values().cloned().collect::<Vec<_>>())
        };
        // Without the lock: a tunnel that closes meanwhile keeps its final counters.
        open.iter()
            .for_each(|tunnel| totals.add_open(&tunnel.stats()));
        totals
    }

    /// The open tunnels of an IP address (IPv6: of its /64 network). Tunnels that are being admitted are not counted.
    pub(crate) fn tunnels_of_address(&self, address: IpAddr) -> usize {
        let state = self.lock();
        state.addresses.get(&network(address)).copied().unwrap_or(0)
    }

    /// Why a key without a tunnel cannot be called: `"KEY" is not connected (last seen 3 min ago)`.
    pub(crate) fn away_message(&self, key: &str) -> String {
        let device = self.device(key).unwrap_or_default();
        let seen = match (device.last_seen, device.tunnels.is_empty()) {
            (None, true) => "never seen since the gateway started".to_owned(),
            (time, _) => {
                let age = time.map(age::since).unwrap_or_default();
                format!("last seen {} ago", age::short(age))
            }
        };
        format!("{key:?} is not connected ({seen})")
    }
}

impl State {
    /// Changes what is known of a key, and forgets the oldest of the away if they are too many.
    fn update(&mut self, key: &str, max_away: usize, change: impl FnOnce(&mut Device)) {
        let known = self.devices.remove_entry(key);
        let (key, mut device) = known.unwrap_or_else(|| (key.into(), Device::default()));
        if let Some(place) = device.place.take() {
            self.away.remove(&place);
        }
        change(&mut device);
        if device.tunnels.is_empty() {
            self.next_place += 1;
            device.place = Some(self.next_place);
            self.away.insert(self.next_place, key.clone());
        }
        self.devices.insert(key, device);
        if self.away.len() > max_away
            && let Some((_, oldest)) = self.away.pop_first()
        {
            self.devices.remove(&oldest);
        }
    }

    /// Remembers an error of a known key.
    fn failed(&mut self, key: &str, error: LastError) {
        let Some((key, _)) = self.devices.get_key_value(key) else {
            return;
        };
        let key = key.clone();
        self.errors.retain(|(other, _)| *other != key);
        if self.errors.len() == MAX_ERRORS {
            self.errors.pop_front();
        }
        self.errors.push_back((key.clone(), error.clone()));
        if let Some(device) = self.devices.get_mut(&key) {
            device.last_error = Some(error);
        }
    }

    /// Counts one tunnel less of a network.
    fn leave(&mut self, network: IpAddr) {
        if let Some(tunnels) = self.addresses.get_mut(&network) {
            *tunnels -= 1;
            if *tunnels == 0 {
                self.addresses.remove(&network);
            }
        }
    }
}

/// Whether a reason is worth remembering: ends without an error are not.
fn is_error(reason: &EndReason) -> bool {
    matches!(reason, EndReason::Error(_) | EndReason::ClosedWith(_))
}

/// The beginning of a text.
fn short(text: &str) -> String {
    match text.char_indices().nth(MAX_ERROR) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Status;
    use tonic::metadata::MetadataMap;
    use tunnel_server::Direction;

    fn refuse(presence: &Presence, key: &str) {
        let info = TunnelInfo::new(
            Direction::Reverse,
            MetadataMap::new(),
            None,
            Some(key.into()),
        );
        presence.refused(&info, &TunnelError::Refused(Status::internal("not today")));
    }

    #[test]
    fn the_key_that_was_away_longest_is_forgotten_first() {
        let presence = Presence::remembering(2);
        for key in ["c", "b", "c", "a"] {
            refuse(&presence, key);
        }
        let known: Vec<_> = presence.devices_after("", 9);
        let known: Vec<_> = known.iter().map(|(key, _)| &**key).collect();
        assert_eq!(known, ["a", "c"]);
    }

    #[test]
    fn the_devices_that_failed_last_are_listed_once_each() {
        let presence = Presence::default();
        let keys: Vec<_> = (0..=MAX_ERRORS).map(|n| format!("device-{n}")).collect();
        keys.iter().for_each(|key| refuse(&presence, key));
        refuse(&presence, "device-7");
        let errors = presence.last_errors();
        assert_eq!(errors.len(), MAX_ERRORS);
        assert_eq!((&*errors[0].0, &*errors[1].0), ("device-7", "device-20"));
        assert!(errors.iter().all(|(key, _)| &**key != "device-0"));
    }

    #[test]
    fn a_key_that_never_was_connected_is_said_to_be_unseen() {
        let presence = Presence::default();
        let message = "\"x\" is not connected (never seen since the gateway started)";
        assert_eq!(presence.away_message("x"), message);
        refuse(&presence, "x");
        assert_eq!(presence.away_message("x"), message);
        let error = presence.device("x").and_then(|device| device.last_error);
        assert_eq!(error.map(|e| e.text).as_deref(), Some("not today"));
    }
}
