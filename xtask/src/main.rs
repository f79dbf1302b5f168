//! The tasks of this repository. `cargo xtask` without a task lists them.
//!
//! Each subcommand has its own file. `tunnel-process` runs other programs; [`pair`] runs a server
//! and its client with it.

mod bench;
mod circles;
mod codegen;
mod core_tree;
mod deployment;
mod examples;
mod features;
mod field;
mod fleet_test;
mod fuzz;
mod interop;
mod lint;
#[cfg(unix)]
mod package;
mod pair;
mod public_api;
mod run_example;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};

/// Tasks of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    RunExample(run_example::Args),
    Test(test::Args),
    Interop(interop::Args),
    /// Run tunnels through HAProxy and nginx, with peers that freeze or vanish.
    Field(field::Args),
    /// Make calls while links and processes fail; look for lost calls and leaks.
    Soak(field::Args),
    FleetTest(fleet_test::Args),
    Bench(bench::Args),
    Fuzz(fuzz::Args),
    Lint(lint::Args),
    #[cfg(unix)]
    Package(package::Args),
    /// Install the Debian package in a container with systemd, and call through its services. Needs root.
    #[cfg(unix)]
    PackageTest(package::Args),
    Codegen(codegen::Args),
    PublicApi(public_api::Args),
    /// Check that the small crates have no forbidden dependencies.
    CoreTree,
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(task: Option<Task>) -> Result<ExitCode> {
    match task {
        None => Cli::command().print_help()?,
        Some(Task::RunExample(args)) => return run_example::run(&args),
        Some(Task::Test(args)) => test::run(&args)?,
        Some(Task::Interop(args)) => return interop::run(&args),
        Some(Task::Field(args)) => return field::run("proxies", &args),
        Some(Task::Soak(args)) => return field::run("soak", &args),
        Some(Task::FleetTest(args)) => return fleet_test::run(&args),
        Some(Task::Bench(args)) => return bench::run(&args),
        Some(Task::Fuzz(args)) => fuzz::run(&args)?,
        Some(Task::Lint(args)) => lint::run(&args)?,
        #[cfg(unix)]
        Some(Task::Package(args)) => package::run(&args)?,
        #[cfg(unix)]
        Some(Task::PackageTest(args)) => package::test(&args)?,
        Some(Task::Codegen(args)) => return codegen::run(&args),
        Some(Task::PublicApi(args)) => public_api::run(&args)?,
        Some(Task::CoreTree) => core_tree::run()?,
    }
    Ok(ExitCode::SUCCESS)
}
