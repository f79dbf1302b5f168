//! `tunnel gateway`: accepts the tunnels of agents, and passes the calls of ordinary gRPC clients on to them.
//!
//! ```text
//! client --> edge (key, identity, access, limits, audit) --> handler's proxy --> tunnel --> agent
//! ```

mod admin;
mod agents;
mod audit;
mod change;
mod deny;
mod edge;
mod exposure;
mod files;
mod fleet;
mod health;
mod history;
mod key;
mod limits;
mod ops;
mod page;
mod presence;
mod record;
mod serve;
mod settings;
mod stop;
mod tap;
mod totals;
mod webhooks;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::settings::printed;
use settings::Settings;

/// Accept tunnels of agents, and pass calls of gRPC clients on to them.
///
/// A client names the device by the metadata "tunnel-key", or by the authority KEY.SUFFIX (--authority-suffix). A key
/// that is no DNS label is written "b32-" and its base32 there. A call without a key is for the gateway itself: its
/// health, and the reflection of its admin API.
///
/// SIGTERM and Ctrl-C drain the gateway and stop it, a second one stops it at once. SIGHUP reads all files again; what
/// has changed is also noticed without it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: Settings,
    /// A TOML file with settings.
    #[arg(long, env = "TUNNEL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the settings with their defaults, as a TOML file, and end.
    #[arg(long)]
    print_config: bool,
    /// Check the settings and the files they name, say what is open to whom, and end.
    #[arg(long)]
    check: bool,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let (flags, file) = (args.settings, args.config);
    let settings = flags.clone().complete(file.as_deref())?;
    if args.print_config {
        print!("{}", printed(&settings)?);
        return Ok(ExitCode::SUCCESS);
    }
    if args.check {
        files::check(&settings)?;
        print!("{}", exposure::report(&settings));
        return Ok(ExitCode::SUCCESS);
    }
    for warning in exposure::warnings(&settings) {
        tracing::warn!("INSECURE: {warning}");
    }
    // What the settings are now, to say what a restart would change.
    let reread = move || flags.clone().complete(file.as_deref());
    serve::serve(settings, reread).await?;
    Ok(ExitCode::SUCCESS)
}
