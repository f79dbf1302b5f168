//! Takes the picture of the documentation. Run by hand:
//! `cargo test -p tunnel-cli --test page picture -- --ignored`.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::browser::with_browser;
use crate::devices::{Api, call, long_call};
use crate::programs::Gateway;

/// How long the devices are called before the picture is taken.
const TRAFFIC: Duration = Duration::from_secs(40);

#[tokio::test]
#[ignore = "writes docs/page.png"]
async fn a_picture_of_the_page_is_taken() {
    let gateway = Gateway::start(&[]).await;
    let api = Api::of(&gateway);
    let keys = [
        "berlin-door",
        "berlin-gate",
        "berlin-roof",
        "london-lift",
        "london-yard",
    ];
    let mut devices = api.devices(&gateway, &keys).await;
    devices.pop();
    let _in_flight = long_call(&gateway, "berlin-roof").await;
    with_browser(gateway.admin, async |browser| {
        browser.open("/").await;
        browser.click_of("berlin-gate", "deny").await;
        browser.find("#deny[open]").await;
        browser.press("stolen").await;
        browser
            .confirm("Denied berlin-gate: 1 tunnel has ended.")
            .await;
        let began = Instant::now();
        while began.elapsed() < TRAFFIC {
            let calls = 1 + began.elapsed().as_millis() / 100 % 7;
            for _ in 0..calls {
                call(&gateway, "berlin-door").await;
                call(&gateway, "london-lift").await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        browser.open("/").await;
        for (name, width, height, scheme) in [
            ("page", 1280, 640, "light"),
            ("page-phone", 360, 1100, "dark"),
        ] {
            let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
            browser
                .dev_tools("Emulation.setEmulatedMedia", features)
                .await;
            let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 800});
            browser
                .dev_tools("Emulation.setDeviceMetricsOverride", size)
                .await;
            browser.until("window.innerWidth", width).await;
            let picture = browser.client.screenshot().await.expect("a picture");
            let directory = match name {
                "page" => concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs").to_owned(),
                _ => std::env::temp_dir().display().to_string(),
            };
            std::fs::write(format!("{directory}/{name}.png"), picture).expect("it is written");
        }
    })
    .await;
}
