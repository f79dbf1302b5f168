//! The programs of the examples with a foreign peer, run as a user runs them.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;
use example_support::caller::Caller;
use example_support::echo::Echo;
use example_support::test::echo_service_client::EchoServiceClient;
use example_support::test::echo_service_server::EchoServiceServer;
use tonic::Code;
use tonic::service::Routes;
use tonic::transport::Server;
use tunnel_conformance::TcpServer;
use tunnel_process::{Process, Show};

use crate::bridge::Running;
use crate::matrix::{Direction, Pair, Peer};
use crate::plain;
use crate::programs::Programs;

/// The cases: what the examples call.
pub(crate) const CASES: [&str; 2] = ["echo", "echo-error"];

/// The timeout for the next line of an example.
const LINE_TIMEOUT: Duration = Duration::from_secs(30);

/// The address for a program that chooses its port and prints it.
const ANY_PORT: &str = "127.0.0.1:0";

/// Runs a case between an example and a foreign peer.
pub(crate) async fn run(case: &str, pair: &Pair, programs: &Programs) -> Result<()> {
    let log = programs.log(&pair.file_stem());
    let start = |peer, command: &str, options: &[String]| {
        let mut bridge = programs.bridge(peer);
        Running::start(bridge.arg(command).args(options), &log)
    };
    if pair.caller == Peer::Examples {
        let backend = TcpServer::start(Server::builder(), echo()).await;
        let options = ["--backend".to_owned(), backend.address().to_string()];
        let (bridge, mut example) = match pair.direction {
            Direction::Forward => {
                let bridge = start(pair.handler, "serve-forward", &options)?;
                let address = bridge.address(0).to_string();
                (bridge, start_example(programs, pair, "client", &address)?)
            }
            _ => {
                let mut example = start_example(programs, pair, "server", ANY_PORT)?;
                let gateway = address_of(&mut example)?;
                let bridge = start(pair.handler, "serve-reverse", &options)?;
                bridge.tell(&format!("{gateway} device"))?;
                (bridge, example)
            }
        };
        let line = match case {
            "echo" => "✓ All calls",
            _ => "Expected error: NotFound: no such thing",
        };
        example.wait_for(line, LINE_TIMEOUT, |said| {
            said.text.contains(line).then_some(())
        })?;
        drop(bridge);
        return Ok(());
    }
    let (bridge, example) = match pair.direction {
        Direction::Forward => {
            let mut example = start_example(programs, pair, "server", ANY_PORT)?;
            let address = address_of(&mut example)?.to_string();
            let options = ["--tunnel".to_owned(), address];
            (start(pair.caller, "call-forward", &options)?, example)
        }
        _ => {
            let bridge = start(pair.caller, "call-reverse", &[])?;
            let gateway = bridge.address(1).to_string();
            (bridge, start_example(programs, pair, "client", &gateway)?)
        }
    };
    let called = call(case, bridge.address(0)).await;
    drop(example);
    called
}

fn echo() -> Routes {
    Routes::new(EchoServiceServer::new(Echo))
}

/// Makes the call of a case.
async fn call(case: &str, address: SocketAddr) -> Result<()> {
    let channel = plain::endpoint(address).connect().await?;
    let caller = Caller::new(EchoServiceClient::new(channel));
    if case == "echo" {
        caller.echo("Hello").await?;
        return Ok(());
    }
    caller.expect_error(Code::NotFound, "nothing here").await?;
    Ok(())
}

/// Starts a program of the examples.
fn start_example(programs: &Programs, pair: &Pair, role: &str, address: &str) -> Result<Process> {
    let mut command = programs.example(pair.direction, role);
    command.args(["--address", address]).stdin(Stdio::piped());
    Process::start(&mut command, Show::Nothing)
}

/// The address that an example prints.
fn address_of(example: &mut Process) -> Result<SocketAddr> {
    example.wait_for("its port", LINE_TIMEOUT, |line| {
        let (_, port) = line.text.split_once("listening on port ")?;
        let port: u16 = port.trim().parse().ok()?;
        Some(([127, 0, 0, 1], port).into())
    })
}
