//! What the admin API shows of tunnels, devices and changes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tunnel_server::{AcceptedTunnel, Stats};

use crate::admin::api;
use crate::admin::api::watch_event::Event;
use crate::gateway::change::{Change, What};
use crate::gateway::deny::Denial;
use crate::gateway::presence::Device;

/// The metadata of labels is this and the name of the label.
const LABEL: &str = "tunnel-label-";

pub(super) fn device(key: &str, device: &Device, denial: Option<&Denial>) -> api::Device {
    let last_seen = match device.tunnels.is_empty() {
        true => device.last_seen,
        false => Some(SystemTime::now()),
    };
    let (last_error, last_error_at) = match &device.last_error {
        Some(error) => (error.text.clone(), Some(error.at.into())),
        None => (String::new(), None),
    };
    api::Device {
        key: key.to_owned(),
        state: state(device, denial).into(),
        tunnels: device.tunnels.iter().map(tunnel).collect(),
        last_seen: last_seen.map(Into::into),
        last_error,
        last_error_at,
        denial: denial.cloned().map(Into::into),
    }
}

/// The state of a device.
pub(super) fn state(device: &Device, denial: Option<&Denial>) -> api::State {
    match denial {
        Some(_) => api::State::Denied,
        None if device.tunnels.is_empty() => api::State::Away,
        None if device.tunnels.iter().any(AcceptedTunnel::is_ready) => api::State::Connected,
        None => api::State::Draining,
    }
}

fn tunnel(tunnel: &AcceptedTunnel) -> api::Tunnel {
    let metadata = tunnel.metadata();
    let agent = metadata
        .get("user-agent")
        .and_then(|agent| agent.to_str().ok());
    api::Tunnel {
        id: tunnel.info().shared_id().to_owned(),
        peer: peer(tunnel.peer_addr()),
        opened_at: Some(tunnel.opened_at().into()),
        agent: agent.unwrap_or_default().to_owned(),
        labels: labels(metadata),
        draining: !tunnel.is_ready(),
        stats: Some(stats(&tunnel.stats())),
        // Said by those who merge the answers of several gateways.
        gateway: String::new(),
    }
}

fn peer(address: Option<SocketAddr>) -> String {
    address
        .map(|address| address.to_string())
        .unwrap_or_default()
}

fn labels(metadata: &MetadataMap) -> BTreeMap<String, String> {
    let label = |entry| match entry {
        KeyAndValueRef::Ascii(name, value) => {
            let name = name.as_str().strip_prefix(LABEL)?;
            Some((name.to_owned(), value.to_str().ok()?.to_owned()))
        }
        KeyAndValueRef::Binary(..) => None,
    };
    metadata.iter().filter_map(label).collect()
}

fn stats(stats: &Stats) -> api::TunnelStats {
    api::TunnelStats {
        calls_in_flight: stats.streams as u64,
        calls_total: stats.streams_total,
        bytes_sent: stats.bytes_sent,
        bytes_received: stats.bytes_received,
        messages_sent: stats.messages_sent,
        messages_received: stats.messages_received,
        round_trip: stats.round_trip.map(duration),
        stalls: stats.stalls,
    }
}

/// A duration, up to the longest that a message can have.
pub(super) fn duration(duration: Duration) -> prost_types::Duration {
    duration.try_into().unwrap_or(prost_types::Duration {
        seconds: i64::MAX,
        nanos: 0,
    })
}

/// An event about a key, or about none.
pub(super) fn event(at: SystemTime, key: &str, event: Event) -> api::WatchEvent {
    api::WatchEvent {
        at: Some(at.into()),
        key: key.to_owned(),
        event: Some(event),
        gateway: String::new(),
    }
}

pub(super) fn change(change: &Arc<Change>) -> api::WatchEvent {
    let what = match change.what.clone() {
        What::Opened(opened) => Event::Opened(api::Opened {
            tunnel: Some(tunnel(&opened)),
        }),
        What::Closed {
            info,
            reason,
            stats: counters,
        } => {
            let open = change.at.duration_since(info.opened_at());
            Event::Closed(api::Closed {
                tunnel_id: info.shared_id().to_owned(),
                reason,
                stats: Some(stats(&counters)),
                duration: Some(duration(open.unwrap_or_default())),
            })
        }
        What::Refused { peer: from, reason } => Event::Refused(api::Refused {
            peer: peer(from),
            reason,
        }),
        What::Denied(denial) => Event::Denied(denial.into()),
        What::Allowed => Event::Allowed(api::Allowed {}),
    };
    event(change.at, &change.key, what)
}

impl From<Denial> for api::Denial {
    fn from(denial: Denial) -> Self {
        Self {
            key: denial.key,
            reason: denial.reason,
            until: denial.until.map(Into::into),
            by: denial.by,
            since: denial.since.map(Into::into),
        }
    }
}
