//! With which command lines the two ends of a pair are started.

use std::process::Command;

use anyhow::Result;

use crate::matrix::{Direction, Pair, Peer};
use crate::setup::Programs;

/// Whoever listens chooses the port itself, and says which it is.
const ANY_PORT: &str = "127.0.0.1:0";

/// What starts the handler. It dials the port, or listens where there is none.
pub(crate) fn handler(pair: &Pair, programs: &Programs, port: Option<u16>) -> Result<Command> {
    let mut command = match (pair.handler, pair.direction) {
        (Peer::Examples, direction) => programs.example(direction, handler_role(direction)),
        (peer, _) => with_command(programs.peer(peer)?, "serve", pair),
    };
    command.args(["--address", &address(port)]);
    // Each case has a tunnel of its own. The example opens one alone.
    if pair.direction == Direction::Reverse && pair.handler != Peer::Examples {
        command.arg("--again");
    }
    Ok(command)
}

/// What starts the caller. It dials the port, or listens where there is none.
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

/// The command of a peer, as in `serve-forward --revision zero`.
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
