//! What the page shows.

use serde_json::{Value, json};

use crate::api;
use crate::browser::{Browser, until_equal, with_browser};
use crate::devices::{Api, call, device, long_call};
use crate::programs::Gateway;

/// The rows of the table, as the page shows them.
const ROWS: &str = "[...document.querySelectorAll('#devices tbody tr')].map((row) => {
    const cell = (name) => row.querySelector(`td[data-label='${name}']`);
    const number = (name) => Number(cell(name).querySelector('data').value);
    return {
        key: row.querySelector('th bdi').textContent,
        state: cell('State').querySelector('.state').textContent,
        tunnels: number('Tunnels'), in_flight: number('In flight'), calls: number('Calls'),
        sent: number('Sent'), received: number('Received'),
        peers: [...cell('Peer').querySelectorAll('span')].map((peer) => peer.textContent),
        error: cell('Last error').querySelector('bdi')?.textContent ?? '',
    };
})";

/// The numbers of the gateway, as the page shows them.
const NUMBERS: &str =
    "Object.fromEntries([...document.querySelectorAll('.tiles > div')].map((tile) =>
    [tile.dataset.key, tile.querySelector('data')?.value ?? tile.querySelector('dd').textContent]))";

/// The same of the API.
fn row(device: &api::Device) -> Value {
    let sum = |counter: fn(&api::TunnelStats) -> u64| {
        let stats = device.tunnels.iter().filter_map(|t| t.stats.as_ref());
        stats.map(counter).sum::<u64>()
    };
    json!({
        "key": device.key,
        "state": device.state().as_str_name().to_lowercase(),
        "tunnels": device.tunnels.len(),
        "in_flight": sum(|stats| stats.calls_in_flight),
        "calls": sum(|stats| stats.calls_total),
        "sent": sum(|stats| stats.bytes_sent),
        "received": sum(|stats| stats.bytes_received),
        "peers": device.tunnels.iter().map(|tunnel| &tunnel.peer).collect::<Vec<_>>(),
        "error": device.last_error,
    })
}

fn numbers(stats: &api::StatsResponse) -> Value {
    json!({
        "ready": if stats.ready { "ready" } else { "draining" },
        "devices-connected": stats.devices_connected.to_string(),
        "devices-denied": stats.devices_denied.to_string(),
        "tunnels-open": stats.tunnels_open.to_string(),
        "tunnels-total": stats.tunnels_total.to_string(),
        "calls-in-flight": stats.calls_in_flight.to_string(),
        "calls-total": stats.calls_total.to_string(),
        "bytes-sent": stats.bytes_sent.to_string(),
        "bytes-received": stats.bytes_received.to_string(),
        "memory": stats.memory_used.to_string(),
        "version": stats.version,
    })
}

/// Waits until the page shows what the API says of the devices that a glob matches.
async fn shows_what_the_api_says(browser: &Browser, api: &Api, filter: &str) {
    until_equal(async || {
        let said: Vec<_> = api.list(filter).await.iter().map(row).collect();
        (browser.value(ROWS).await, Value::from(said))
    })
    .await;
    until_equal(async || {
        let mut shown = browser.value(NUMBERS).await;
        // The time since the start is never the same for both.
        shown.as_object_mut().expect("an object").remove("uptime");
        (shown, numbers(&api.stats().await))
    })
    .await;
}

#[tokio::test]
async fn what_the_page_shows_is_what_the_api_says() {
    let gateway = Gateway::start(&[]).await;
    let api = Api::of(&gateway);
    let mut devices = api.devices(&gateway, &["away", "busy", "idle"]).await;
    devices.remove(0);
    api.until("away", api::State::Away).await;
    for _ in 0..3 {
        call(&gateway, "busy").await;
    }
    let _in_flight = long_call(&gateway, "busy").await;
    with_browser(gateway.admin, async |browser| {
        browser.open("/").await;
        shows_what_the_api_says(browser, &api, "").await;
        let shown = browser.value(ROWS).await;
        assert_eq!(shown[1]["in_flight"], 1, "{shown}");
        assert_eq!(shown[1]["calls"], 4, "{shown}");
        assert_eq!(shown[0]["state"], "away", "{shown}");
        // Metadata that is no label may be a secret.
        let html = browser.client.source().await.expect("it is shown");
        assert!(html.contains("site=north") && !html.contains("hidden-from-the-page"));
    })
    .await;
}

#[tokio::test]
async fn devices_that_come_and_go_and_their_calls_are_shown_without_a_reload() {
    let gateway = Gateway::start(&[]).await;
    let api = Api::of(&gateway);
    with_browser(gateway.admin, async |browser| {
        browser.open("/").await;
        browser.value("window.isTheSamePage = true").await;
        shows_what_the_api_says(browser, &api, "").await;
        let first = device(&gateway, "first");
        browser.find("tr[data-key=first] .connected").await;
        let second = device(&gateway, "second");
        browser.find("tr[data-key=second] .connected").await;
        call(&gateway, "first").await;
        shows_what_the_api_says(browser, &api, "").await;
        drop(second);
        browser.find("tr[data-key=second] .away").await;
        drop(first);
        browser.find("tr[data-key=first] .away").await;
        shows_what_the_api_says(browser, &api, "").await;
        assert_eq!(browser.value("window.isTheSamePage").await, true);
    })
    .await;
}

#[tokio::test]
async fn charts_show_rates_and_latencies_with_their_values_as_text() {
    let gateway = Gateway::start(&[]).await;
    let api = Api::of(&gateway);
    let _devices = api.devices(&gateway, &["device"]).await;
    let _in_flight = long_call(&gateway, "device").await;
    let label = |chart: &str| {
        format!("document.querySelector('[data-key=chart-{chart}] svg').getAttribute('aria-label')")
    };
    with_browser(gateway.admin, async |browser| {
        browser.open("/").await;
        let in_flight = "Calls in flight in the last five minutes: now 1, at most 1";
        browser.until(&label("in-flight"), in_flight).await;
        let has_calls = format!(
            "!{}.endsWith('at most 0') && !{}.includes('–')",
            label("calls"),
            label("latency")
        );
        until_equal(async || {
            call(&gateway, "device").await;
            (browser.value(&has_calls).await, Value::Bool(true))
        })
        .await;
        let drawn = "[...document.querySelectorAll('#live path')].every((path) => path.getTotalLength() >= 0 \
                     && path.getAttribute('d') !== '')";
        assert_eq!(browser.value(drawn).await, true);
    })
    .await;
}

#[tokio::test]
async fn one_pages_and_searches_through_hundreds_of_devices() {
    let gateway = Gateway::start(&[]).await;
    let api = Api::of(&gateway);
    let keys: Vec<_> = (0..220)
        .map(|number| format!("device-{number:03}"))
        .collect();
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    let devices: Vec<_> = keys.iter().map(|key| device(&gateway, key)).collect();
    until_equal(async || (api.stats().await.devices_connected, keys.len() as u64)).await;
    let shown = "[...document.querySelectorAll('tbody tr')].map((row) => row.dataset.key)";
    with_browser(gateway.admin, async |browser| {
        browser.open("/").await;
        for page in keys.chunks(50) {
            browser.until(shown, page).await;
            if page.len() == 50 {
                browser.click("#next").await;
            }
        }
        assert_eq!(
            browser.value("document.querySelector('#next')").await,
            Value::Null
        );
        browser.click("#previous").await;
        browser.until(shown, &keys[150..200]).await;
        browser.click("#previous").await;
        browser.until(shown, &keys[100..150]).await;
        browser.click("#first").await;
        browser.until(shown, &keys[..50]).await;
        for (search, glob) in [("e-21", "*e-21*"), ("*-?05", "*-?05")] {
            let field = browser.find("#q").await;
            field.clear().await.expect("it is a field");
            field.send_keys(search).await.expect("it is a field");
            browser.click("#search button").await;
            let found: Vec<_> = api.list(glob).await.into_iter().map(|d| d.key).collect();
            assert!(!found.is_empty() && found.len() < 50);
            browser.until(shown, found).await;
        }
        // What is searched for stays searched for.
        shows_what_the_api_says(browser, &api, "*-?05").await;
        drop(devices);
        browser.find("tr[data-key=device-005] .away").await;
        shows_what_the_api_says(browser, &api, "*-?05").await;
        browser.open("/?q=%5B").await;
        browser.find("#devices .error").await;
    })
    .await;
}

#[tokio::test]
async fn scripts_in_keys_reasons_and_errors_are_shown_as_text() {
    let gateway = Gateway::start(&[]).await;
    let api = Api::of(&gateway);
    let evil = "<script>window.evil=1</script><img src=x onerror=window.evil=1>\"'&amp;";
    let devices = api.devices(&gateway, &[evil]).await;
    with_browser(gateway.admin, async |browser| {
        browser.open("/").await;
        browser.click("tbody button[data-do=deny]").await;
        browser.find("#deny[open] [name=reason]").await;
        browser.press(evil).await;
        browser
            .confirm(&format!("Denied {evil}: 1 tunnel has ended."))
            .await;
        api.until(evil, api::State::Denied).await;
        // It comes back, and is refused: that is its last error.
        until_equal(async || {
            let known = api.device(evil).await.expect("it is known");
            (known.last_error.contains(evil), true)
        })
        .await;
        drop(devices);
        shows_what_the_api_says(browser, &api, "").await;
        let errors = "document.querySelector('#errors li').textContent";
        let errors = browser.value(errors).await;
        assert!(
            errors.as_str().is_some_and(|text| text.contains(evil)),
            "{errors}"
        );
        browser.open("/").await;
        shows_what_the_api_says(browser, &api, "").await;
        let scripts = "[document.scripts.length, document.images.length, typeof window.evil]";
        assert_eq!(browser.value(scripts).await, json!([1, 0, "undefined"]));
    })
    .await;
}

#[tokio::test]
async fn a_page_whose_gateway_is_gone_says_so() {
    let mut gateway = Gateway::start(&[]).await;
    with_browser(gateway.admin, async |browser| {
        browser.open("/").await;
        let said = "document.getElementById('connection').textContent";
        browser.until(said, "Live").await;
        gateway.process.kill().expect("it runs");
        let lost = "The connection to the gateway is lost. Trying again.";
        browser.until(said, lost).await;
    })
    .await;
}
