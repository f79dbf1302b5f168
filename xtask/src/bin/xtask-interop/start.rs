//! The command lines of the two ends of a pair.

use std::process::Command;

use anyhow::Result;

use crate::matrix::{Direction, Pair, Peer};
use crate::setup::Programs;

/// Port zero: the program that listens chooses a free port and prints it.
const ANY_PORT: &str = "127.0.0.1:0";

/// The command of the handler, which dials `port`, or listens if that is `None`.
pub(crate) fn handler(pair: &Pair, programs: &Programs, port: Option<u16>) -> Result<Command> {
    let mut command = match (pair.handler, pair.direction) {
        (Peer::Examples, direction) => programs.example(direction, handler_role(direction)),
        (peer, _) => with_command(programs.peer(peer)?, "serve", pair),
    };
    command.args(["--address", &address(port)]);
    // A peer opens a tunnel for each case. The example opens a single tunnel.
    if pair.direction == Direction::Reverse && pair.handler != Peer::Examples {
        command.arg("--again");
    }
    Ok(command)
}

/// The command of the caller, which dials `port`, or listens if that is `None`.
pub(crate) fn caller(
    pair: &Pair,
    programs: &Programs,
    port: Option<u16>,
    cases: &[String],
) -> Result<Command> {
    if pair.caller == Peer::Examples {
        let mut command = programs.example(pair.direction, caller_role(pair.direction));
        command.args(["--address", &address(port)]);
        return Ok(command);
    }
    let mut command = with_command(programs.peer(pair.caller)?, "call", pair);
    command.args(["--address", &address(port)]);
    command.args(["--case", &cases.join(",")]);
    if pair.direction == Direction::Reverse && pair.handler == Peer::Examples {
        command.arg("--one-tunnel");
    }
    Ok(command)
}

/// Adds a peer's subcommand and revision, as in `serve-forward --revision zero`.
fn with_command(mut peer: Command, verb: &str, pair: &Pair) -> Command {
    peer.arg(format!("{verb}-{}", pair.direction.id()));
    peer.args(["--revision", pair.revision.id()]);
    peer
}

fn handler_role(direction: Direction) -> &'static str {
    match direction {
        Direction::Forward => "server",
        Direction::Reverse => "client",
    }
}

fn caller_role(direction: Direction) -> &'static str {
    match direction {
        Direction::Forward => "client",
        Direction::Reverse => "server",
    }
}

fn address(port: Option<u16>) -> String {
    port.map_or_else(|| ANY_PORT.to_owned(), |port| format!("127.0.0.1:{port}"))
}
