//! The programs of the examples with a foreign peer, run as a user runs them.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use example_support::caller::Caller;
use example_support::echo::Echo;
use example_support::test::echo_service_client::EchoServiceClient;
use example_support::test::echo_service_server::EchoServiceServer;
use tonic::Code;
use tonic::service::Routes;
use tonic::transport::{Endpoint, Server};
use tunnel_conformance::TcpServer;

use crate::bridge::Running;
use crate::matrix::{Direction, Pair, Peer};
use crate::programs::Programs;

/// The cases: what the examples call.
pub(crate) const CASES: [&str; 2] = ["echo", "echo-error"];

/// The timeout for the next line of an example.
const LINE_TIMEOUT: Duration = Duration::from_secs(30);

/// The address for a program that chooses its port and prints it.
const ANY_PORT: &str = "127.0.0.1:0";

/// Runs a case between an example and a foreign peer.
pub(crate) async fn run(case: &str, pair: &Pair, programs: &Programs) -> Result<()> {
    let log = programs
        .out
        .join("logs")
        .join(pair.file_stem())
        .with_extension("log");
    let start = |peer, command: &str, options: &[String]| {
        let mut bridge = programs.bridge(peer);
        Running::start(bridge.arg(command).args(options), &log)
    };
    if pair.caller == Peer::Examples {
        let backend = TcpServer::start(Server::builder(), echo()).await;
        let options = ["--backend".to_owned(), backend.address().to_string()];
        let (bridge, example) = match pair.direction {
            Direction::Forward => {
                let bridge = start(pair.handler, "serve-forward", &options)?;
                let address = bridge.address(0).to_string();
                (bridge, Example::start(programs, pair, "client", &address)?)
            }
            _ => {
                let example = Example::start(programs, pair, "server", ANY_PORT)?;
                let gateway = example.address()?;
                let bridge = start(pair.handler, "serve-reverse", &options)?;
                bridge.tell(&format!("{gateway} device"))?;
                (bridge, example)
            }
        };
        let line = match case {
            "echo" => "✓ All calls",
            _ => "Expected error: NotFound: no such thing",
        };
        example.wait_for(line)?;
        drop(bridge);
        return Ok(());
    }
    let (bridge, example) = match pair.direction {
        Direction::Forward => {
            let example = Example::start(programs, pair, "server", ANY_PORT)?;
            let options = ["--tunnel".to_owned(), example.address()?.to_string()];
            (start(pair.caller, "call-forward", &options)?, example)
        }
        _ => {
            let bridge = start(pair.caller, "call-reverse", &[])?;
            let gateway = bridge.address(1).to_string();
            (bridge, Example::start(programs, pair, "client", &gateway)?)
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
    let channel = Endpoint::from_shared(format!("http://{address}"))?
        .connect()
        .await?;
    let caller = Caller::new(EchoServiceClient::new(channel));
    if case == "echo" {
        caller.echo("Hello").await?;
        return Ok(());
    }
    caller.expect_error(Code::NotFound, "nothing here").await?;
    Ok(())
}

/// A running program of the examples. It is killed when dropped.
struct Example {
    child: Child,
    output: Receiver<String>,
}

impl Example {
    fn start(programs: &Programs, pair: &Pair, role: &str, address: &str) -> Result<Self> {
        let mut command = programs.example(pair.direction, role);
        command.args(["--address", address]).stdin(Stdio::piped());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take().context("the output is piped")?;
        let (lines, output) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // It fails when nobody reads any more.
                let _ = lines.send(line);
            }
        });
        Ok(Self { child, output })
    }

    /// Reads the output up to a line that contains a text, and returns that line.
    fn wait_for(&self, text: &str) -> Result<String> {
        let mut last = String::new();
        while let Ok(line) = self.output.recv_timeout(LINE_TIMEOUT) {
            if line.contains(text) {
                return Ok(line);
            }
            last = line;
        }
        bail!("the example never says {text:?}; it says last: {last}")
    }

    fn address(&self) -> Result<SocketAddr> {
        let line = self.wait_for("listening on port ")?;
        let port = line.rsplit("listening on port ").next().unwrap_or_default();
        let port: u16 = port.trim().parse()?;
        Ok(([127, 0, 0, 1], port).into())
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // It fails only for a program that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
