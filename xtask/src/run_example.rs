//! `cargo xtask run-example`: builds an example, runs it and shows its output.

use std::env;
use std::io::{self, IsTerminal};
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, Result, bail};
use clap::builder::{PossibleValue, PossibleValuesParser};
use tunnel_process::{CtrlC, cargo, exit_code, expect_success};

use crate::examples::{ClientOption, EXAMPLES, Example, Kind};
use crate::pair;

/// Build an example and run it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The name of the example.
    #[arg(required_unless_present = "list", value_parser = names())]
    name: Option<String>,

    /// List the examples.
    #[arg(long)]
    list: bool,

    /// Options for the client, or for the program if the example has only one.
    #[arg(last = true)]
    args: Vec<String>,
}

fn names() -> PossibleValuesParser {
    let value = |example: &Example| PossibleValue::new(example.name).help(example.about);
    PossibleValuesParser::new(EXAMPLES.iter().map(value))
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let wanted = args.name.as_deref();
    let example = EXAMPLES.iter().find(|known| Some(known.name) == wanted);
    if let Some(example) = example
        && !args.list
    {
        build(example)?;
        return start(&example.kind, &args.args).map(|status| exit_code(status).into());
    }
    list();
    Ok(ExitCode::SUCCESS)
}

fn list() {
    for example in EXAMPLES {
        println!("{:<18}{}", example.name, example.about);
    }
}

fn build(example: &Example) -> Result<()> {
    let programs = match example.kind {
        Kind::Alone { program } => vec![program],
        Kind::ClientAndServer { server, client, .. } => vec![server, client],
    };
    let mut cargo = cargo();
    cargo.args(["build", "--package", example.package]);
    if example.runs_tunnel() {
        cargo.args(["--package", "tunnel-cli", "--bin", "tunnel"]);
    }
    for program in programs {
        cargo.args(["--bin", program]);
    }
    expect_success(&mut cargo)
}

fn start(kind: &Kind, extra: &[String]) -> Result<ExitStatus> {
    match kind {
        Kind::Alone { program: name } => {
            // The program receives Ctrl-C too, and ends by itself.
            let _ctrl_c = CtrlC::watch()?;
            let status = program(name)?.args(extra).status();
            status.with_context(|| format!("cannot start {name}"))
        }
        Kind::ClientAndServer {
            server,
            client,
            options,
        } => {
            let mut client = program(client)?;
            client.args(client_args(options, extra, io::stdout().is_terminal()));
            pair::run(program(server)?, client)
        }
    }
}

/// The path of a program of the workspace. Cargo writes it to the directory of this program.
fn program(name: &str) -> Result<Command> {
    let this = env::current_exe().context("cannot tell where this program is")?;
    let path = this
        .with_file_name(name)
        .with_extension(env::consts::EXE_EXTENSION);
    if !path.is_file() {
        bail!("{name} was built, but {} does not exist", path.display());
    }
    Ok(Command::new(path))
}

/// The default options that the user does not override, followed by the user's options.
fn client_args(options: &[ClientOption], extra: &[String], attended: bool) -> Vec<String> {
    let given = |name| extra.iter().any(|arg| arg.split('=').next() == Some(name));
    let wanted = |option: &&ClientOption| {
        let out_of_place = option.unattended_only && attended;
        !given(option.name) && !out_of_place
    };
    let kept = options.iter().filter(wanted);
    kept.flat_map(|option| [Some(option.name), option.value])
        .flatten()
        .map(str::to_owned)
        .chain(extra.iter().cloned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::client_args;
    use crate::examples::{EXAMPLES, Kind};

    fn args_of(name: &str, extra: &[&str], attended: bool) -> String {
        let example = EXAMPLES.iter().find(|example| example.name == name);
        let Some(Kind::ClientAndServer { options, .. }) = example.map(|example| &example.kind)
        else {
            panic!("{name} has no client");
        };
        let extra: Vec<_> = extra.iter().map(ToString::to_string).collect();
        client_args(options, &extra, attended).join(" ")
    }

    #[test]
    fn the_long_lived_tunnel_ends_by_itself_where_nobody_watches() {
        assert_eq!(args_of("long-lived", &[], true), "--keep-open");
        assert_eq!(args_of("long-lived", &[], false), "--keep-open --for 3");
    }

    #[test]
    fn what_the_user_says_comes_instead_of_what_the_example_says() {
        assert_eq!(args_of("many-calls", &[], false), "--calls 1000");
        assert_eq!(args_of("many-calls", &["--calls=7"], false), "--calls=7");
        assert_eq!(
            args_of("long-lived", &["--for", "9"], false),
            "--keep-open --for 9"
        );
    }
}
