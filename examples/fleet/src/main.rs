//! A fleet: gateways that share a directory, so that each of them reaches every device.
//!
//! Each device has tunnels to two of three gateways. A gateway calls a device through its own tunnel if it has one, and
//! otherwise through another gateway, by a *hop*. One gateway is killed and comes back, and then all are restarted one
//! after the other, while each calls all devices.
//!
//! - `gateway` is what an embedder writes: a gateway and its place in the fleet.
//! - `calls` makes calls and counts them.
//! - `etcd` starts a directory that the gateways share. Without etcd it is in memory, and all gateways must be in one
//!   process.

mod calls;
mod etcd;
mod gateway;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use comfy_table::Table;
use example_support::echo::NamedEcho;
use example_support::test::echo_service_server::EchoServiceServer;
use tonic::metadata::MetadataMap;
use tonic::transport::Endpoint;
use tunnel_client::{Backoff, LinksHandle, ReverseTunnelServer};

use crate::calls::{Calls, Counts, reach};
use crate::etcd::Engine;
use crate::gateway::{DEVICE, Gateway};

/// The gateways of the fleet.
const GATEWAYS: [&str; 3] = ["north", "east", "west"];

/// Calls devices at several gateways, one of which is killed, and all of which are restarted.
#[derive(Parser)]
struct Args {
    /// The number of devices.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(3..=1000))]
    devices: u16,
    /// Use the directory in memory, even if etcd is installed.
    #[arg(long)]
    memory: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let engine = Engine::start(args.memory)?;
    let mut gateways = Vec::new();
    for name in GATEWAYS {
        gateways.push(Gateway::start(name, &engine, None).await?);
    }
    let keys: Vec<_> = (1..=args.devices).map(|n| format!("device-{n}")).collect();
    let mut devices = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        let two = [&gateways[number % 3], &gateways[(number + 1) % 3]];
        devices.push(start_device(key, two)?);
    }
    settle(&gateways, &devices, &keys).await?;
    println!("{} devices are reached at each of 3 gateways", keys.len());

    let mut table = Table::new();
    table.set_header(["", "calls", "by a hop", "failed"]);
    let mut row = |what: &str, counts: Counts| {
        table.add_row([
            what.to_owned(),
            counts.made.to_string(),
            counts.moved.to_string(),
            counts.failed.to_string(),
        ]);
    };

    let calls = Calls::begin(&gateways, &keys);
    calls.more(500).await?;
    row("nothing happens", calls.end(&gateways).await);

    let calls = Calls::begin(&gateways[1..], &keys);
    calls.more(200).await?;
    gateways[0].kill();
    println!("{} was killed: its calls in flight are lost", GATEWAYS[0]);
    calls.more(500).await?;
    let counts = calls.end(&gateways[1..]).await;
    row("a gateway is killed", counts);
    ensure!(
        counts.failed <= calls::CALLERS * 2,
        "{} calls failed, more than those in flight",
        counts.failed
    );
    let address = gateways[0].address;
    gateways[0] = Gateway::start(GATEWAYS[0], &engine, Some(address)).await?;
    settle(&gateways, &devices, &keys).await?;
    println!("{} is back, and so are its devices", GATEWAYS[0]);

    let mut restarted = Counts::default();
    for (number, name) in GATEWAYS.into_iter().enumerate() {
        // Calls come from the gateways that go on: a balancer takes the third out before it stops.
        let gateway = gateways.remove(number);
        let calls = Calls::begin(&gateways, &keys);
        calls.more(100).await?;
        let address = gateway.address;
        gateway.stop().await;
        calls.more(100).await?;
        let gateway = Gateway::start(name, &engine, Some(address)).await?;
        calls.more(100).await?;
        restarted += calls.end(&gateways).await;
        gateways.insert(number, gateway);
        settle(&gateways, &devices, &keys).await?;
        println!("{name} was restarted");
    }
    row("all gateways are restarted", restarted);
    println!("{table}");
    ensure!(restarted.failed == 0, "a restart has cost calls");
    println!("✓ Each gateway reached every device, and no restart cost a call");
    Ok(())
}

/// Starts a device that keeps a tunnel to each of two gateways.
fn start_device(key: &str, gateways: [&Gateway; 2]) -> Result<LinksHandle> {
    let [first, second] = gateways.map(|gateway| format!("http://{}", gateway.address));
    let mut metadata = MetadataMap::new();
    metadata.insert(DEVICE, key.parse()?);
    let device = ReverseTunnelServer::builder(Endpoint::from_shared(first)?)
        .gateway(Endpoint::from_shared(second)?)
        .metadata(metadata)
        // Quick, for the sake of the example.
        .backoff(Backoff::default().cap(Duration::from_secs(1)))
        .add_service(EchoServiceServer::new(NamedEcho(key.to_owned())))
        .build();
    let handle = device.handle();
    tokio::spawn(device.run());
    Ok(handle)
}

/// Waits until all devices have their tunnels, and are reached at each gateway.
async fn settle(gateways: &[Gateway], devices: &[LinksHandle], keys: &[String]) -> Result<()> {
    for device in devices {
        device.all_connected().await?;
    }
    for gateway in gateways {
        for key in keys {
            let reached = reach(gateway.fleet(), key).await;
            reached.with_context(|| format!("{key} is not reached"))?;
        }
    }
    Ok(())
}
