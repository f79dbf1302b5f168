//! The table of devices, its search and its pages.

use maud::{Markup, html};
use tonic::Status;

use super::view::{STATES, View};
use crate::admin::{api, human};

/// A number with separators, also for programs.
pub(super) fn number(value: u64) -> Markup {
    let digits = value.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    html! { data value=(value) { (text) } }
}

/// A number of bytes, also for programs.
pub(super) fn bytes(value: u64) -> Markup {
    html! { data value=(value) { (human::bytes(value)) } }
}

/// How long ago a time was.
pub(super) fn ago(time: Option<prost_types::Timestamp>) -> Markup {
    html! {
        @if time.is_some() {
            time datetime=(human::time(time, "%FT%T%:z")) title=(human::time(time, "%F %T %z")) { (human::age(time)) }
        }
    }
}

/// The form for what to show.
pub(super) fn search(view: &View) -> Markup {
    html! {
        search {
            form #search method="get" action="/" {
                label for="q" { "Key" }
                input #q name="q" type="search" value=(view.q) placeholder="a part, or a glob like berlin-*"
                    autocapitalize="off" spellcheck="false";
                label for="state" { "State" }
                select #state name="state" {
                    @for (name, _) in STATES {
                        option value=(name) selected[name == view.state] {
                            @if name.is_empty() { "any" } @else { (name) }
                        }
                    }
                }
                button { "Search" }
                button.danger type="button" data-do="deny" { "Deny a key…" }
            }
        }
    }
}

/// The table with its pages.
pub(super) fn section(
    view: &View,
    in_fleet: bool,
    listed: Result<&api::ListResponse, &Status>,
) -> Markup {
    html! {
        section #devices tabindex="-1" aria-label="Devices" {
            @match listed {
                Ok(listed) => (table(view, in_fleet, listed)),
                Err(status) => p.error { (status.message()) },
            }
        }
    }
}

fn table(view: &View, in_fleet: bool, listed: &api::ListResponse) -> Markup {
    let gateway = in_fleet.then_some("Gateway");
    let columns = ["Device", "State", "Tunnels"].into_iter().chain(gateway);
    let columns = columns.chain([
        "In flight",
        "Calls",
        "Sent",
        "Received",
        "Round trip",
        "Peer",
        "Since",
        "Last error",
    ]);
    html! {
        table role="table" {
            thead role="rowgroup" {
                tr role="row" {
                    @for name in columns {
                        th role="columnheader" scope="col" { (name) }
                    }
                    th role="columnheader" scope="col" { "Actions" }
                }
            }
            tbody role="rowgroup" {
                @for device in &listed.devices { (row(device, in_fleet)) }
            }
        }
        @if listed.devices.is_empty() { p.none { "No device." } }
        nav aria-label="Pages of devices" {
            @if !view.is_first() {
                a #first href=(view.first()) { "First" } " "
                a #previous rel="prev" href=(view.previous()) { "Previous" } " "
            }
            @if !listed.next_page_token.is_empty() {
                a #next rel="next" href=(view.next(&listed.next_page_token)) { "Next" }
            }
        }
    }
}

/// A cell with the name of its column, for narrow screens.
pub(super) fn cell(name: &str, content: &Markup) -> Markup {
    html! { td role="cell" data-label=(name) { div { (content) } } }
}

/// The sum of a counter over the tunnels of a device.
fn sum(device: &api::Device, counter: fn(&api::TunnelStats) -> u64) -> u64 {
    let stats = device.tunnels.iter().filter_map(|t| t.stats.as_ref());
    stats.map(counter).sum()
}

/// Something of each tunnel of a device.
fn each(device: &api::Device, show: impl Fn(&api::Tunnel) -> Markup) -> Markup {
    html! {
        @for tunnel in &device.tunnels { div { (show(tunnel)) } }
    }
}

fn row(device: &api::Device, in_fleet: bool) -> Markup {
    let key = &device.key;
    let round_trip = |tunnel: &api::Tunnel| {
        let time = tunnel.stats.as_ref().and_then(|stats| stats.round_trip);
        html! { (human::duration(time).map(human::round_trip).unwrap_or_default()) }
    };
    let peer = |tunnel: &api::Tunnel| html! { span title=(tunnel.agent) { (tunnel.peer) } };
    let since = match device.tunnels.is_empty() {
        true => {
            html! { @if device.last_seen.is_some() { "seen " (ago(device.last_seen)) " ago" } }
        }
        false => each(device, |tunnel| ago(tunnel.opened_at)),
    };
    let error = html! {
        @if !device.last_error.is_empty() {
            bdi { (human::clean(&device.last_error)) } " (" (ago(device.last_error_at)) " ago)"
        }
    };
    html! {
        tr role="row" data-key=(key) {
            th role="rowheader" scope="row" { bdi { (human::clean(key)) } (labels(device)) }
            (cell("State", &state(device)))
            (cell("Tunnels", &number(device.tunnels.len() as u64)))
            @if in_fleet {
                (cell("Gateway", &each(device, |tunnel| html! { bdi { (human::clean(&tunnel.gateway)) } })))
            }
            (cell("In flight", &number(sum(device, |stats| stats.calls_in_flight))))
            (cell("Calls", &number(sum(device, |stats| stats.calls_total))))
            (cell("Sent", &bytes(sum(device, |stats| stats.bytes_sent))))
            (cell("Received", &bytes(sum(device, |stats| stats.bytes_received))))
            (cell("Round trip", &each(device, round_trip)))
            (cell("Peer", &each(device, peer)))
            (cell("Since", &since))
            (cell("Last error", &error))
            (cell("Actions", &buttons(device)))
        }
    }
}

fn labels(device: &api::Device) -> Markup {
    let labels = device.tunnels.last().map(|tunnel| &tunnel.labels);
    html! {
        @for (name, value) in labels.into_iter().flatten() {
            " " small { bdi { (name) "=" (human::clean(value)) } }
        }
    }
}

fn state(device: &api::Device) -> Markup {
    let name = STATES
        .iter()
        .find_map(|(name, state)| (*state == device.state()).then_some(*name));
    let name = name.unwrap_or_default();
    html! {
        span class={ "state " (name) } { (name) }
        @if let Some(denial) = &device.denial {
            small {
                @if !denial.reason.is_empty() { " " bdi { (human::clean(&denial.reason)) } }
                @if denial.until.is_some() { " until " (human::time(denial.until, "%F %T")) }
                @if !denial.by.is_empty() { " by " bdi { (human::clean(&denial.by)) } }
            }
        }
    }
}

fn buttons(device: &api::Device) -> Markup {
    let button = |action: &str, name: &str| {
        html! {
            button type="button" data-key=(action) data-do=(action) aria-label={ (name) " " (device.key) } {
                (name)
            }
        }
    };
    html! {
        @if !device.tunnels.is_empty() { (button("kick", "Kick")) " " }
        @if device.denial.is_some() { (button("allow", "Allow")) } @else { (button("deny", "Deny")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_devices_are_escaped() {
        let evil = "<script>alert(1)</script>\"'";
        let device = api::Device {
            key: evil.to_owned(),
            last_error: evil.to_owned(),
            denial: Some(api::Denial {
                reason: evil.to_owned(),
                ..api::Denial::default()
            }),
            ..api::Device::default()
        };
        let html = row(&device, true).into_string();
        assert!(!html.contains("<script"), "{html}");
        assert_eq!(
            html.matches("&lt;script&gt;").count(),
            html.matches("alert(1)").count(),
            "{html}"
        );
    }

    #[test]
    fn a_number_has_separators() {
        for (value, text) in [
            (0, ">0<"),
            (999, ">999<"),
            (1000, ">1,000<"),
            (1_234_567, ">1,234,567<"),
        ] {
            assert!(number(value).into_string().contains(text), "{value}");
        }
    }
}
