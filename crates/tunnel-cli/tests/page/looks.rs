//! How the page looks: in the dark, and on a phone.

use serde_json::json;

use crate::browser::with_browser;
use crate::devices::{Api, call};
use crate::programs::Gateway;

#[tokio::test]
async fn the_page_is_dark_where_the_system_is() {
    let gateway = Gateway::start(&[]).await;
    with_browser(gateway.admin, async |browser| {
        browser.open("/").await;
        for (scheme, is_dark) in [("dark", true), ("light", false)] {
            let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
            browser
                .dev_tools("Emulation.setEmulatedMedia", features)
                .await;
            let back = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every((c) => c < 128)";
            browser.until(back, is_dark).await;
            let text = "getComputedStyle(document.body).color.match(/\\d+/g).every((c) => c > 128)";
            browser.until(text, is_dark).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_phone_shows_everything_without_scrolling_sideways() {
    let gateway = Gateway::start(&[]).await;
    let api = Api::of(&gateway);
    let long =
        "a-device-with-a-key-that-is-much-too-long-for-the-narrow-screen-of-a-phone-".repeat(3);
    let mut devices = api.devices(&gateway, &[&long, "device", "kicked"]).await;
    call(&gateway, "device").await;
    with_browser(gateway.admin, async |browser| {
        browser.open("/").await;
        browser.click_of("kicked", "kick").await;
        browser.press(&long).await;
        browser.confirm("Kicked kicked: 1 tunnel has ended.").await;
        devices.pop();
        let fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
        for width in [360, 700, 1024, 1400] {
            let phone = json!({"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": width < 800});
            browser
                .dev_tools("Emulation.setDeviceMetricsOverride", phone)
                .await;
            browser.until("window.innerWidth", width).await;
            browser.find("#errors li").await;
            browser.until(fits, true).await;
            // The dialogs as well.
            browser.click("header [data-do=drain]").await;
            browser.find("#drain[open]").await;
            browser.until(fits, true).await;
            browser.click("#drain [data-close]").await;
        }
    })
    .await;
}
