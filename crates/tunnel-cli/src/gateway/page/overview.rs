//! How the gateway is doing, and its last errors.

use std::sync::Arc;

use maud::{Markup, html};

use super::devices::{ago, bytes, number};
use crate::admin::{api, human};
use crate::age;
use crate::gateway::admin::Phase;
use crate::gateway::presence::LastError;

/// The numbers of the gateway, or of its fleet.
pub(super) fn state(stats: &api::StatsResponse, phase: Phase) -> Markup {
    let state = match (phase, stats.ready) {
        (Phase::Drained, _) => "drained",
        (Phase::Draining(_), _) => "draining",
        (Phase::Serving, true) => "ready",
        (Phase::Serving, false) => "not ready",
    };
    let uptime = human::duration(stats.uptime).map(age::short);
    let memory = html! {
        (bytes(stats.memory_used))
        @if stats.memory_budget > 0 { " of " (bytes(stats.memory_budget)) }
    };
    let tiles = [
        (
            "ready",
            "Gateway",
            html! { span class={ "state " (state) } { (state) } },
        ),
        (
            "devices-connected",
            "Devices connected",
            number(stats.devices_connected),
        ),
        (
            "devices-denied",
            "Devices denied",
            number(stats.devices_denied),
        ),
        ("tunnels-open", "Tunnels open", number(stats.tunnels_open)),
        (
            "tunnels-total",
            "Tunnels in all",
            number(stats.tunnels_total),
        ),
        (
            "calls-in-flight",
            "Calls in flight",
            number(stats.calls_in_flight),
        ),
        ("calls-total", "Calls in all", number(stats.calls_total)),
        ("bytes-sent", "Sent", bytes(stats.bytes_sent)),
        ("bytes-received", "Received", bytes(stats.bytes_received)),
        ("memory", "Memory of messages", memory),
        ("uptime", "Up for", html! { (uptime.unwrap_or_default()) }),
        ("version", "Version", html! { (stats.version) }),
    ];
    html! {
        dl.tiles aria-label="The gateway" {
            @for (key, name, value) in &tiles {
                div data-key=(key) { dt { (name) } dd { (value) } }
            }
        }
    }
}

/// The last errors of the devices of a gateway, which has a name if it is not alone.
pub(super) fn errors(gateway: &str, errors: &[(Arc<str>, LastError)]) -> Markup {
    html! {
        section #errors aria-label="Last errors" {
            h2 { "Last errors" @if !gateway.is_empty() { " at " bdi { (gateway) } } }
            @if errors.is_empty() { p.none { "None." } }
            ul {
                @for (key, error) in errors {
                    li {
                        (ago(Some(error.at.into()))) " ago: " b { bdi { (human::clean(key)) } } " "
                        bdi { (human::clean(&error.text)) }
                    }
                }
            }
        }
    }
}
