//! The page of a gateway in a fleet.

use serde_json::json;
use tunnel_process::Signal;

use crate::browser::{until_equal, with_browser};
use crate::devices::{Api, device};
use crate::fleets::Etcd;

/// The gateways that the page shows, and how they are doing.
const GATEWAYS: &str = "[...document.querySelectorAll('#gateways tbody tr')].map((row) =>
    [row.dataset.key, row.querySelector('.state').textContent])";

#[tokio::test]
async fn the_page_shows_the_whole_fleet_and_its_buttons_reach_it() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let (a, b) = (etcd.gateway("edge-a").await, etcd.gateway("edge-b").await);
    let api = Api::of(&a);
    let _device = device(&b, "device");
    with_browser(a.admin, async |browser| {
        browser.open("/").await;
        let ready = json!([["edge-a", "ready"], ["edge-b", "ready"]]);
        browser.until(GATEWAYS, ready.clone()).await;
        browser.find("tr[data-key=device] .connected").await;
        let place =
            "document.querySelector(\"tr[data-key=device] td[data-label=Gateway]\").textContent";
        browser.until(place, "edge-b").await;
        browser.click_of("device", "kick").await;
        browser.find("#kick[open]").await;
        browser.press("too loud").await;
        browser.confirm("Kicked device: 1 tunnel has ended.").await;
        until_equal(async || {
            let known = api.device("device").await.expect("it is known");
            (known.last_error.contains("too loud"), true)
        })
        .await;
        browser.find("tr[data-key=device] .connected").await;
        browser.click_of("device", "deny").await;
        browser.find("#deny[open]").await;
        browser.press("stolen").await;
        browser
            .confirm("Denied device: it had no tunnel at edge-a.")
            .await;
        browser.find("tr[data-key=device] .denied").await;
        // A gateway that is frozen is shown, and holds nothing up.
        b.process.signal(Signal::Stop).expect("it runs");
        let silent = json!([["edge-a", "ready"], ["edge-b", "unreachable"]]);
        browser.until(GATEWAYS, silent).await;
        let said = "document.querySelector('#silent')?.textContent ?? ''";
        browser
            .until(said, "Not reached: edge-b. What is there is missing here.")
            .await;
        b.process.signal(Signal::Continue).expect("it runs");
        browser.until(GATEWAYS, ready).await;
        browser.until(said, "").await;
    })
    .await;
}
