//! The device fleet example, all in one program.
//!
//! Many devices that cannot be dialled keep reverse tunnels to a gateway up. The
//! gateway calls each device by its key, and all devices in turn. Meanwhile devices
//! and gateways are killed, drained and restarted. Each has its own runtime and
//! uses only TCP, so a kill works like a power cut: no goodbye is sent.
//!
//! At the end a table shows the results of the calls. The program checks them, and
//! fails if a promise was broken.

mod books;
mod device;
mod dispatch;
mod fleet;
mod gateway;
mod phase;
mod progress;
mod report;
mod show;

use std::num::NonZeroUsize;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use example_support::{exit, log};
use tracing::info;

use crate::report::{Tally, table};
use crate::show::Show;

/// The protobuf package `test`: the messages and the stubs of `DeviceService`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
pub mod test {
    include!("generated/test.rs");
}

/// Calls a fleet of devices through reverse tunnels while devices and gateways fail.
#[derive(Parser)]
#[command(name = "device-fleet")]
struct Args {
    /// The number of devices. Each takes a thread and about ten file descriptors.
    #[arg(long, value_name = "N", default_value = "50")]
    devices: NonZeroUsize,

    /// The number of calls to each device in each phase. If something happens in the
    /// phase, calls go on until it is over.
    #[arg(long, value_name = "N", default_value = "20")]
    calls: NonZeroUsize,

    /// The seed that chooses the devices that fail.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    log::init(module_path!());
    exit::code(run(&args).await)
}

async fn run(args: &Args) -> Result<()> {
    let show = Show::begin(args.devices.get(), args.calls.get(), args.seed).await?;
    let mut tallies = Vec::new();
    let played = show.play(&mut tallies).await;
    for line in table(&tallies) {
        info!("{line}");
    }
    played?;
    tallies.iter().try_for_each(Tally::verdict)?;
    info!("✓ No call was misdirected or processed twice, and all devices and gateways came back");
    Ok(())
}
