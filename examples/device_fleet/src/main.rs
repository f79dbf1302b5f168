//! The device fleet example, all in one program.
//!
//! Many devices that nobody can dial keep reverse tunnels to a gateway up; the
//! gateway calls each of them by its key, and all of them in turn. Meanwhile
//! devices and gateways are killed and drained, and started again. Every one of them
//! has a runtime of its own and talks to the others over TCP alone, so that a kill
//! takes from it what a power cut would: it says no goodbye.
//!
//! At the end a table says what has become of the calls. The program checks its own
//! promises, and fails if one of them was broken.

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

/// Calls a fleet of devices through reverse tunnels, whatever happens to them.
#[derive(Parser)]
#[command(name = "device-fleet")]
struct Args {
    /// How many devices there are. Each takes a thread and about ten file descriptors.
    #[arg(long, value_name = "N", default_value = "50")]
    devices: NonZeroUsize,

    /// How many calls are made to each device in each phase; where something happens in
    /// the phase, calls go on until it is over.
    #[arg(long, value_name = "N", default_value = "20")]
    calls: NonZeroUsize,

    /// Decides which devices have bad luck.
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
    info!("✓ No call went astray, none was processed twice, and everything came back");
    Ok(())
}
