//! Runs a server and its client together.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::ctrl_c::CtrlC;
use crate::output::{Colour, Label};
use crate::process::Process;

/// The time limit for a server to accept connections.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The interval between checks for Ctrl-C while waiting for a server.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

const SERVER: Label = Label {
    name: "server",
    colour: Colour::Cyan,
};
const CLIENT: Label = Label {
    name: "client",
    colour: Colour::Green,
};

/// Runs a client against a server on a free port, and stops the server when the client has ended.
/// Both take `--address`, and the server prints `listening on port PORT`.
///
/// Returns the client's exit code or, if the client succeeded and the server failed, the server's.
pub(crate) fn run(mut server: Command, mut client: Command) -> Result<ExitStatus> {
    let ctrl_c = CtrlC::watch()?;
    // The server chooses the port and prints it. Another program could take a port that was chosen
    // here before the server starts.
    server.arg("--address").arg("127.0.0.1:0");
    let (mut server, lines) = Process::spawn_labelled(SERVER, &mut server)?;
    let address = wait_until_accepting(&mut server, &lines, &ctrl_c)?;
    client.arg("--address").arg(address.to_string());
    let (mut client, _) = Process::spawn_labelled(CLIENT, &mut client)?;
    let client_status = client.wait(&ctrl_c)?;
    let server_status = server.stop(&ctrl_c)?;

    // On systems without SIGINT the server was killed, so its status means nothing.
    let server_failed = cfg!(unix) && !server_status.success();
    if client_status.success() && server_failed {
        eprintln!("the server failed ({server_status})");
        return Ok(server_status);
    }
    Ok(client_status)
}

/// Waits until the server has printed its port and accepts connections.
fn wait_until_accepting(
    server: &mut Process,
    lines: &Receiver<String>,
    ctrl_c: &CtrlC,
) -> Result<SocketAddr> {
    let start = Instant::now();
    loop {
        match lines.recv_timeout(POLL_INTERVAL) {
            Ok(line) => {
                if let Some(port) = port_in(&line) {
                    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                    TcpStream::connect_timeout(&address, START_TIMEOUT).with_context(|| {
                        format!("the server accepts no connection on {address}")
                    })?;
                    return Ok(address);
                }
            }
            // The output has ended, so the process ends soon.
            Err(RecvTimeoutError::Disconnected) => {
                let status = server.wait(ctrl_c)?;
                bail!("the server ended before it accepted a connection ({status})");
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if ctrl_c.pressed() {
            bail!("stopped before the server accepted a connection");
        }
        if start.elapsed() > START_TIMEOUT {
            bail!("the server did not print its port in time");
        }
    }
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
        assert!(
            error.to_string().contains("ended before it accepted"),
            "{error}"
        );
    }
}
