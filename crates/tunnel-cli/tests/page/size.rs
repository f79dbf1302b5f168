//! How large and how fast the page is with many devices. Prints its numbers, and is run by hand:
//! `cargo test -p tunnel-cli --test page -- --ignored --nocapture`.

use std::time::Instant;

use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::browser::{until_equal, with_browser};
use crate::devices::{Api, connected};
use crate::fleets::Etcd;
use crate::programs::Gateway;

/// How many, unless the variable DEVICES says otherwise.
const DEVICES: usize = 10_000;

async fn get(gateway: &Gateway, path: &str) -> usize {
    let mut connection = TcpStream::connect(gateway.admin).await.expect("it listens");
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
        gateway.admin
    );
    connection
        .write_all(request.as_bytes())
        .await
        .expect("it is read");
    let mut answer = Vec::new();
    connection
        .read_to_end(&mut answer)
        .await
        .expect("it is sent");
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    answer.len()
}

/// Settings for many devices of one address.
const MANY: [&str; 4] = [
    "--max-tunnels-of-address",
    "1000000",
    "--max-handshakes",
    "4096",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "opens 10,000 tunnels"]
async fn the_page_is_small_and_fast_with_ten_thousand_devices() {
    let gateway = Gateway::start(&MANY).await;
    measure(&gateway, &[&gateway]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "opens 10,000 tunnels"]
async fn the_page_is_small_and_fast_with_ten_thousand_devices_in_a_fleet() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let mut gateways = Vec::new();
    for name in ["edge-a", "edge-b", "edge-c"] {
        gateways.push(etcd.gateway_with(name, &MANY).await);
    }
    let at: Vec<_> = gateways.iter().collect();
    measure(&gateways[0], &at).await;
}

/// Measures the page of a gateway. The devices are at several ones in turn.
async fn measure(gateway: &Gateway, at: &[&Gateway]) {
    rlimit::increase_nofile_limit(u64::MAX).expect("more descriptors");
    let number =
        std::env::var("DEVICES").map_or(DEVICES, |number| number.parse().expect("a number"));
    let api = Api::of(gateway);
    let devices: Vec<_> = futures::stream::iter(0..number)
        .map(async |number| connected(at[number % at.len()], &format!("device-{number}")).await)
        .buffer_unordered(64)
        .collect()
        .await;
    until_equal(async || (api.stats().await.devices_connected, number as u64)).await;
    let began = Instant::now();
    api.stats().await;
    println!("gRPC Stats: {:?}", began.elapsed());
    for path in [
        "/",
        "/page/live",
        "/page/live?q=device-77",
        "/page/live?q=none-has-this",
        "/page/live?state=connected",
        "/page/live?state=away",
    ] {
        let mut times = Vec::new();
        let mut size = 0;
        for _ in 0..20 {
            let began = Instant::now();
            size = get(gateway, path).await;
            times.push(began.elapsed());
        }
        times.sort();
        println!(
            "{path}: {size} bytes, median {:?}, slowest {:?}",
            times[10], times[19]
        );
    }
    with_browser(gateway.admin, async |browser| {
        browser.open("/").await;
        browser.until("document.querySelector('[data-key=devices-connected] data').value", number.to_string()).await;
        let updated = browser.client.execute_async(
            "const done = arguments[0]; const began = performance.now(); update().then(() => done(performance.now() - began));",
            Vec::new(),
        );
        println!("an update in the browser: {} ms", updated.await.expect("it is done"));
    })
    .await;
    drop(devices);
}
