//! The gateways of the fleet.

use maud::{Markup, html};

use super::devices::{cell, number};
use crate::admin::{api, human};

/// The gateways that have not answered.
pub(super) fn silent(mut names: Vec<String>) -> Markup {
    names.sort();
    names.dedup();
    html! {
        @if !names.is_empty() {
            p #silent .error role="alert" data-key="silent" {
                "Not reached: " bdi { (human::clean(&names.join(", "))) } ". What is there is missing here."
            }
        }
    }
}

/// What a gateway is, as a word.
fn state(gateway: &api::GatewayStats) -> &'static str {
    match (gateway.reachable, gateway.draining, gateway.ready) {
        (false, ..) => "unreachable",
        (true, true, _) => "draining",
        (true, false, true) => "ready",
        (true, false, false) => "not ready",
    }
}

/// All gateways; nothing if this one is alone.
pub(super) fn table(stats: &api::StatsResponse) -> Markup {
    html! {
        @if !stats.gateways.is_empty() {
            section #gateways data-key="gateways" aria-label="Gateways" {
                table role="table" {
                    thead role="rowgroup" {
                        tr role="row" {
                            @for name in ["Gateway", "Zone", "Version", "State", "Tunnels", "In flight"] {
                                th role="columnheader" scope="col" { (name) }
                            }
                        }
                    }
                    tbody role="rowgroup" {
                        @for gateway in &stats.gateways { (row(gateway, &stats.gateway)) }
                    }
                }
            }
        }
    }
}

fn row(gateway: &api::GatewayStats, own: &str) -> Markup {
    let state = state(gateway);
    let counter = |value| html! { @if gateway.reachable { (number(value)) } };
    html! {
        tr role="row" data-key=(gateway.name) {
            th role="rowheader" scope="row" {
                bdi { (human::clean(&gateway.name)) }
                @if gateway.name == own { " " small { "this one" } }
            }
            (cell("Zone", &html! { bdi { (human::clean(&gateway.zone)) } }))
            (cell("Version", &html! { (human::clean(&gateway.version)) }))
            (cell("State", &html! { span class={ "state " (state) } { (state) } }))
            (cell("Tunnels", &counter(gateway.tunnels_open)))
            (cell("In flight", &counter(gateway.calls_in_flight)))
        }
    }
}
