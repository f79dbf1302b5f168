//! What the programs of the interop suite that are written in Rust have in
//! common: a command line, and how they serve and call through tunnels.
//!
//! A program says with a [`Suite`] what it serves and which cases there are, and
//! passes its command line to [`run`].

pub mod call;
pub mod options;
pub mod serve;
pub mod testing;

use std::fmt::Debug;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use tonic::service::Routes;

use call::Case;
use options::{Command, Key};

/// What sets one program apart from the others.
pub trait Suite: 'static {
    /// What is tried.
    type Case: Case;

    /// What `--key` takes.
    type Key: Key;

    /// The subcommands that the other programs do not have;
    /// [`Nothing`](options::Nothing) where there are none.
    type Extra: Subcommand + Debug;

    /// Every case, in the order in which they run.
    const CASES: &'static [Self::Case];

    /// The services that are called.
    fn services() -> Routes;

    /// Does what one of the further subcommands says.
    fn run(extra: Self::Extra) -> impl Future<Output = Result<()>>;
}

/// Does what the command line says. Ends with 0 for success, 1 for failure;
/// misuse ends with 2 while it is parsed.
pub async fn run<S: Suite>(command: Command<S>) -> ExitCode {
    match execute(command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAIL {}", call::one_line(&error));
            ExitCode::FAILURE
        }
    }
}

async fn execute<S: Suite>(command: Command<S>) -> Result<()> {
    match command {
        Command::ServeForward(end) => serve::forward(&end, S::services()).await,
        Command::ServeReverse(options) => serve::reverse(&options, S::services()).await,
        Command::CallForward {
            end,
            opening,
            selected,
            trial,
        } => call::forward(&end, &opening, &trial, selected.cases()).await,
        Command::CallReverse {
            end,
            selected,
            trial,
        } => call::reverse(&end, &trial, selected.cases()).await,
        Command::Extra(extra) => S::run(extra).await,
        Command::Cases => {
            for case in S::CASES {
                println!("{}", case.name());
            }
            Ok(())
        }
    }
}
