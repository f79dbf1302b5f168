//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::peer;

/// Measures tunnels of both directions beside plain tonic and other ways to carry calls, side by
/// side in one run.
#[derive(Parser, Debug)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) role: Option<Role>,

    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// What a run is like.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// How many rounds count, after one that warms up; a round measures every variant of every
    /// workload once.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,

    /// How long each measurement takes, in milliseconds.
    #[arg(long, default_value_t = 700, value_parser = clap::value_parser!(u64).range(50..))]
    pub(crate) millis: u64,

    /// Three short rounds and at most 10,000 streams, for a first look.
    #[arg(long)]
    pub(crate) quick: bool,

    /// Only the workload of this name or, if there is none, those whose name contains this.
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Option<String>,

    /// Only this variant, and others named like this. Ratios need "plain tonic" too.
    #[arg(long = "variant", value_name = "NAME")]
    pub(crate) variants: Vec<String>,

    /// Say which workloads and variants there are, and measure nothing.
    #[arg(long)]
    pub(crate) list: bool,

    /// Where the results are written.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,

    /// Compare with the results in this file of an earlier run.
    #[arg(long, value_name = "FILE")]
    pub(crate) against: Option<PathBuf>,

    /// Measure the Go library too, with this program.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) go: Option<PathBuf>,

    /// Put the table into this file, between its marks.
    #[arg(long, value_name = "FILE")]
    pub(crate) readme: Option<PathBuf>,
}

/// What the orchestrator starts this program as.
#[derive(Subcommand, Debug)]
pub(crate) enum Role {
    /// Serve until the input ends.
    #[command(hide = true)]
    Server {
        #[command(flatten)]
        options: peer::Options,

        /// Dial this port of the loopback to serve there.
        #[arg(long)]
        dial: Option<u16>,
    },

    /// Do the jobs of the input.
    #[command(hide = true)]
    Client {
        #[command(flatten)]
        options: peer::Options,

        /// Connect to this port of the loopback.
        #[arg(long)]
        connect: Option<u16>,
    },
}
