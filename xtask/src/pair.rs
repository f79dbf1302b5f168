//! Runs a server and its client together.

use std::env;
use std::io::{self, IsTerminal};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use tunnel_process::{CtrlC, Process, Show, Signal};

/// The time limit for a server to accept connections.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The time limit for a program to end after SIGINT, before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// The delay between a Ctrl-C and the SIGINT to a program: at a terminal the program has received
/// the Ctrl-C itself.
const CTRL_C_GRACE: Duration = Duration::from_secs(2);

/// The interval between checks for Ctrl-C.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Runs a client against a server on a free port, and stops the server when the client has ended.
/// Both take `--address`, and the server prints `listening on port PORT`.
///
/// Returns the client's exit code or, if the client succeeded and the server failed, the server's.
pub(crate) fn run(mut server: Command, mut client: Command) -> Result<ExitStatus> {
    let ctrl_c = CtrlC::watch()?;
    // The server chooses the port and prints it. Another program could take a port that was chosen
    // here before the server starts.
    server.arg("--address").arg("127.0.0.1:0");
    let mut server = start("server", CYAN, &mut server)?;
    let port = server.wait_for("its port", START_TIMEOUT, |line| port_in(&line.text))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, START_TIMEOUT)
        .with_context(|| format!("the server accepts no connection on {address}"))?;
    client.arg("--address").arg(address.to_string());
    let mut client = start("client", GREEN, &mut client)?;
    let client_status = loop {
        if let Some(status) = client.wait(POLL_INTERVAL)? {
            break status;
        }
        if ctrl_c.pressed() {
            break stop(&mut client, &ctrl_c)?;
        }
    };
    let server_status = stop(&mut server, &ctrl_c)?;

    // On systems without SIGINT the server was killed, so its status means nothing.
    let server_failed = cfg!(unix) && !server_status.success();
    if client_status.success() && server_failed {
        eprintln!("the server failed ({server_status})");
        return Ok(server_status);
    }
    Ok(client_status)
}

/// The terminal's code of a colour.
const CYAN: u8 = 36;
const GREEN: u8 = 32;

/// Starts a program whose output is printed line by line after its name, coloured if the terminal
/// supports it.
fn start(name: &str, colour: u8, command: &mut Command) -> Result<Process> {
    let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let prefix = match io::stdout().is_terminal() && !plain {
        true => format!("\x1b[{colour}m{name} |\x1b[0m "),
        false => format!("{name} | "),
    };
    let process = Process::start(command.stdin(Stdio::null()), Show::All(prefix))?;
    Ok(process.named(&format!("the {name}")))
}

fn stop(process: &mut Process, ctrl_c: &CtrlC) -> Result<ExitStatus> {
    if ctrl_c.pressed()
        && let Some(status) = process.wait(CTRL_C_GRACE)?
    {
        return Ok(status);
    }
    process.stop(Signal::Interrupt, STOP_TIMEOUT)
}

/// The port in a line that says where a server listens.
fn port_in(line: &str) -> Option<u16> {
    let (_, port) = line.split_once("listening on port ")?;
    port.trim().parse().ok()
}

#[cfg(all(test, unix))]
mod tests {
    use std::process::Command;

    use super::{port_in, run};

    #[test]
    fn the_port_is_found_in_the_line_that_names_it() {
        let line = "2026-01-14 10:00:00 - INFO - ✓ Server listening on port 50051\n";
        assert_eq!(port_in(line), Some(50051));
        assert_eq!(port_in("Waiting for clients to connect...\n"), None);
        assert_eq!(port_in("listening on port 70000\n"), None);
    }

    #[test]
    fn a_server_that_ends_early_is_an_error() {
        let mut server = Command::new("sh");
        server.args(["-c", "exit 4"]);
        let error = run(server, Command::new("true")).expect_err("there is no server");
        let expected = "the server ended (exit status: 4) before it said its port";
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}
