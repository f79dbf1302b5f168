//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::peer;

/// Measures forward and reverse tunnels against plain tonic and other transports, all in one run.
#[derive(Parser, Debug)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) role: Option<Role>,

    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// The options of a run.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// The number of rounds that count, after one warm-up round. A round measures every variant of
    /// every workload once.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,

    /// The duration of each measurement, in milliseconds.
    #[arg(long, default_value_t = 700, value_parser = clap::value_parser!(u64).range(50..))]
    pub(crate) millis: u64,

    /// Run three short rounds with at most 10,000 streams, for a first look.
    #[arg(long)]
    pub(crate) quick: bool,

    /// Run only the workload of this name or, if there is none, those whose name contains it.
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Option<String>,

    /// Run only this variant; can be repeated. Ratios need "plain tonic" too.
    #[arg(long = "variant", value_name = "NAME")]
    pub(crate) variants: Vec<String>,

    /// List the workloads and variants, and measure nothing.
    #[arg(long)]
    pub(crate) list: bool,

    /// The directory for the results.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,

    /// Compare with the results of an earlier run, from this JSON file.
    #[arg(long, value_name = "FILE")]
    pub(crate) against: Option<PathBuf>,

    /// Measure the Go library too, with this Go benchmark program.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) go: Option<PathBuf>,

    /// Write the main table into this README, between its bench:begin and bench:end markers.
    #[arg(long, value_name = "FILE")]
    pub(crate) readme: Option<PathBuf>,
}

/// The roles in which the orchestrator starts this program.
#[derive(Subcommand, Debug)]
pub(crate) enum Role {
    /// Serve until standard input ends.
    #[command(hide = true)]
    Server {
        #[command(flatten)]
        options: peer::Options,

        /// Serve through reverse tunnels to this port on 127.0.0.1.
        #[arg(long)]
        dial: Option<u16>,
    },

    /// Run the jobs read from standard input.
    #[command(hide = true)]
    Client {
        #[command(flatten)]
        options: peer::Options,

        /// Connect to this port on 127.0.0.1.
        #[arg(long)]
        connect: Option<u16>,
    },
}
