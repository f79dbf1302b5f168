//! What the buttons do.

use std::time::{Duration, SystemTime};

use fantoccini::key::Key;
use serde_json::Value;

use crate::api;
use crate::browser::{until_equal, with_browser};
use crate::devices::{Api, long_call};
use crate::programs::Gateway;

#[tokio::test]
async fn a_device_is_kicked_after_a_confirmation_alone() {
    let gateway = Gateway::start(&[]).await;
    let api = Api::of(&gateway);
    let _devices = api.devices(&gateway, &["device"]).await;
    with_browser(gateway.admin, async |browser| {
        browser.open("/").await;
        browser.click_of("device", "kick").await;
        browser.click("#kick[open] [data-close]").await;
        browser
            .until("document.querySelector('dialog[open]')", Value::Null)
            .await;
        assert_eq!(api.stats().await.tunnels_total, 1);
        browser.click_of("device", "kick").await;
        browser.find("#kick[open]").await;
        // The key is that of the row, and the field for the reason has the focus.
        browser.press("too loud").await;
        browser.confirm("Kicked device: 1 tunnel has ended.").await;
        until_equal(async || (api.stats().await.tunnels_total, 2)).await;
        let known = api.device("device").await.expect("it is known");
        assert!(known.last_error.contains("too loud"), "{known:?}");
    })
    .await;
}

#[tokio::test]
async fn a_device_is_denied_for_a_time_and_allowed_again() {
    let gateway = Gateway::start(&[]).await;
    let api = Api::of(&gateway);
    let _devices = api.devices(&gateway, &["device"]).await;
    with_browser(gateway.admin, async |browser| {
        browser.open("/").await;
        browser.click_of("device", "deny").await;
        browser.find("#deny[open]").await;
        browser.press("stolen").await;
        let time = browser.find("#deny [name=seconds]").await;
        time.select_by_value("86400")
            .await
            .expect("it can be chosen");
        browser.confirm("Denied device: 1 tunnel has ended.").await;
        let known = api.device("device").await.expect("it is known");
        let denial = known.denial.expect("it is denied");
        assert_eq!((&*denial.reason, &*denial.by), ("stolen", "127.0.0.1"));
        let until = SystemTime::try_from(denial.until.expect("for a time")).expect("a time");
        let left = until.duration_since(SystemTime::now()).expect("later");
        assert!(left > Duration::from_secs(86_000) && left <= Duration::from_secs(86_400));
        browser.find("tr[data-key=device] .denied").await;
        browser.click_of("device", "allow").await;
        browser.confirm("Allowed device.").await;
        api.until("device", api::State::Connected).await;
        browser.find("tr[data-key=device] .connected").await;
    })
    .await;
}

#[tokio::test]
async fn a_key_that_nobody_has_can_be_denied() {
    let gateway = Gateway::start(&[]).await;
    let api = Api::of(&gateway);
    with_browser(gateway.admin, async |browser| {
        browser.open("/").await;
        browser.click("#search [data-do=deny]").await;
        browser.find("#deny[open]").await;
        browser.press("stranger").await;
        browser.confirm("Denied stranger: it had no tunnel.").await;
        api.until("stranger", api::State::Denied).await;
        browser.find("tr[data-key=stranger] .denied").await;
    })
    .await;
}

#[tokio::test]
async fn the_gateway_is_drained_after_a_confirmation() {
    let gateway = Gateway::start(&[]).await;
    let api = Api::of(&gateway);
    let _devices = api.devices(&gateway, &["device"]).await;
    let call = long_call(&gateway, "device").await;
    with_browser(gateway.admin, async |browser| {
        browser.open("/").await;
        browser.click("header [data-do=drain]").await;
        browser.find("#drain[open]").await;
        assert!(!api.drain().await.draining);
        browser.confirm("The gateway drains.").await;
        let drain = api.drain().await;
        assert!(drain.draining && !drain.drained, "{drain:?}");
        browser.find(".tiles .draining").await;
        drop(call);
        browser.find(".tiles .drained").await;
        assert!(api.drain().await.drained);
    })
    .await;
}

#[tokio::test]
async fn the_keyboard_alone_can_kick_a_device() {
    let gateway = Gateway::start(&[]).await;
    let api = Api::of(&gateway);
    let _devices = api.devices(&gateway, &["another", "device"]).await;
    let key = |key: Key| char::from(key).to_string();
    with_browser(gateway.admin, async |browser| {
        browser.open("/").await;
        browser
            .until("document.getElementById('connection').textContent", "Live")
            .await;
        let button = "tr[data-key=device] [data-do=kick]";
        browser.tab_to(button).await;
        let outline = "getComputedStyle(document.activeElement).outlineStyle";
        assert_eq!(browser.value(outline).await, "solid");
        // An update leaves the focus where it is.
        browser
            .value("window.before = document.querySelector('#live').innerHTML")
            .await;
        browser
            .until(
                "document.querySelector('#live').innerHTML !== window.before",
                true,
            )
            .await;
        let focused = format!("document.activeElement.matches('{button}')");
        assert_eq!(browser.value(&focused).await, true);
        browser.press(&key(Key::Enter)).await;
        browser.find("#kick[open]").await;
        browser.press(&key(Key::Escape)).await;
        browser
            .until("document.querySelector('dialog[open]')", Value::Null)
            .await;
        browser.until(&focused, true).await;
        assert_eq!(api.stats().await.tunnels_total, 2);
        browser.press(&key(Key::Enter)).await;
        browser.find("#kick[open]").await;
        browser.press("by hand").await;
        browser.tab_to("#kick button.danger").await;
        browser.press(&key(Key::Enter)).await;
        let said = "document.getElementById('said').textContent";
        browser
            .until(said, "Kicked device: 1 tunnel has ended.")
            .await;
        until_equal(async || (api.stats().await.tunnels_total, 3)).await;
        let known = api.device("device").await.expect("it is known");
        assert!(known.last_error.contains("by hand"), "{known:?}");
    })
    .await;
}
