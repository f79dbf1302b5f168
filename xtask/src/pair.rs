//! A server and its client, run together.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::ctrl_c::CtrlC;
use crate::output::{Colour, Label};
use crate::process::Process;

/// How long a server may take until it accepts connections.
const START_TIMEOUT: Duration = Duration::from_secs(30);

const SERVER: Label = Label {
    name: "server",
    colour: Colour::Cyan,
};
const CLIENT: Label = Label {
    name: "client",
    colour: Colour::Green,
};

/// Runs a client against a server, both of which take `--address`, on a free
/// port, and stops the server when the client has ended.
///
/// The client's status counts, unless the client is content and the server is
/// not.
pub(crate) fn run(mut server: Command, mut client: Command) -> Result<ExitStatus> {
    let ctrl_c = CtrlC::watch()?;
    let address = free_address()?;
    server.arg("--address").arg(address.to_string());
    client.arg("--address").arg(address.to_string());

    let mut server = Process::spawn_labelled(SERVER, &mut server)?;
    wait_until_accepting(&mut server, address, &ctrl_c)?;
    let mut client = Process::spawn_labelled(CLIENT, &mut client)?;
    let client_status = client.wait(&ctrl_c)?;
    let server_status = server.stop(&ctrl_c)?;

    // Where there is no SIGINT the server was killed, which is no fault of its own.
    let server_failed = cfg!(unix) && !server_status.success();
    if client_status.success() && server_failed {
        eprintln!("the server failed ({server_status})");
        return Ok(server_status);
    }
    Ok(client_status)
}

/// An address that nobody listens on.
fn free_address() -> Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .context("cannot find a free port")
}

/// Waits until the server accepts connections.
fn wait_until_accepting(server: &mut Process, address: SocketAddr, ctrl_c: &CtrlC) -> Result<()> {
    let start = Instant::now();
    while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
        if let Some(status) = server.ended()? {
            bail!("the server ended before it accepted a connection ({status})");
        }
        if ctrl_c.pressed() {
            bail!("stopped before the server accepted a connection");
        }
        if start.elapsed() > START_TIMEOUT {
            bail!("the server accepts no connection on {address}");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::process::Command;

    use super::run;

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
