//! The commands of operators, against the service on loopback.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use tokio::sync::mpsc;

use super::*;
use crate::admin::{Command, run_to};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Operators of a gateway.
struct Operators {
    gateway: Gateway,
    address: String,
}

impl Operators {
    async fn start() -> Self {
        let gateway = Gateway::start().await;
        let address = listen(&gateway).await;
        Self { gateway, address }
    }

    fn parse(&self, command: &[&str]) -> Command {
        parse(&self.address, command)
    }

    /// Runs a command. Returns its output and its exit code.
    async fn run(&self, command: &[&str]) -> (String, ExitCode) {
        let mut out = Vec::new();
        let code = run_to(self.parse(command), &mut out)
            .await
            .expect("no error");
        (String::from_utf8(out).expect("text"), code)
    }
}

/// Serves the API of a gateway at a port.
async fn listen(gateway: &Gateway) -> String {
    let server = AdminServer::from_arc(gateway.service.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let server = Server::builder().add_service(server);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

fn parse(address: &str, command: &[&str]) -> Command {
    let words = ["tunnel"].iter().chain(command).copied();
    let words = words.chain(["--admin", address]);
    Cli::try_parse_from(words).expect("legal").command
}

/// Runs a command against a gateway. Returns its output.
pub(super) async fn run_at(gateway: &Gateway, command: &[&str]) -> String {
    let mut out = Vec::new();
    let command = parse(&listen(gateway).await, command);
    run_to(command, &mut out).await.expect("no error");
    String::from_utf8(out).expect("text")
}

/// Output that is read while the command runs.
struct Output(mpsc::UnboundedSender<String>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        self.0.send(text).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The words of each line.
fn words(text: &str) -> Vec<Vec<&str>> {
    text.lines()
        .map(|line| line.split_whitespace().collect())
        .collect()
}

#[tokio::test]
async fn operators_see_devices_and_deny_them() {
    let mut operators = Operators::start().await;
    let keys = ["a".to_owned(), "b".to_owned()];
    let _devices = operators.gateway.devices(&keys).await;
    let (list, _) = operators.run(&["list"]).await;
    let lines = words(&list);
    let header = [
        "KEY", "STATE", "TUNNELS", "CALLS", "SENT", "RECEIVED", "RTT", "SINCE", "PEER", "LAST",
        "ERROR",
    ];
    assert_eq!(lines[0], header);
    assert_eq!(
        lines[1][..6],
        ["a", "connected", "1", "0", "/", "0"],
        "{list}"
    );
    assert_eq!(lines.len(), 3);

    let (denied, _) = operators
        .run(&["deny", "a", "--reason", "stolen", "--for", "1h"])
        .await;
    assert!(denied.starts_with("\"a\": denied until "), "{denied}");
    assert!(denied.ends_with(", 1 tunnel is ended\n"), "{denied}");
    let (list, _) = operators.run(&["denied"]).await;
    let denied = &words(&list)[1];
    assert_eq!(
        (denied[0], *denied.last().expect("a reason")),
        ("a", "stolen")
    );
    let (list, _) = operators
        .run(&["list", "--state", "denied", "--json"])
        .await;
    let device: serde_json::Value = serde_json::from_str(&list).expect("one line");
    assert_eq!(device["denial"]["by"], "127.0.0.1");
    let (allowed, _) = operators.run(&["allow", "a"]).await;
    assert_eq!(allowed, "\"a\": allowed again\n");
    let (kicked, _) = operators.run(&["kick", "unknown"]).await;
    assert_eq!(kicked, "\"unknown\": no tunnel was open\n");
    let (limited, _) = operators.run(&["list", "--limit", "1"]).await;
    assert_eq!(
        words(&limited).len(),
        3,
        "a header, a device and the hint: {limited}"
    );
}

#[tokio::test]
async fn a_drain_is_seen_by_its_exit_code_and_by_those_who_watch() {
    let mut operators = Operators::start().await;
    let _devices = operators.gateway.devices(&["a".to_owned()]).await;
    let (text, code) = operators.run(&["drain", "--check"]).await;
    assert_eq!(
        (text.as_str(), code),
        (
            "not draining (open tunnels: 1, calls in flight: 0)\n",
            ExitCode::FAILURE
        )
    );
    let (lines, mut output) = mpsc::unbounded_channel();
    let command = operators.parse(&["watch", "--filter", "a*"]);
    let watched = tokio::spawn(async move { run_to(command, &mut Output(lines)).await });
    let mut events = String::new();
    while !events.contains("synced") {
        events += &output.recv().await.expect("more output");
    }
    let (_, code) = operators.run(&["drain"]).await;
    assert_eq!(code, ExitCode::SUCCESS);
    assert!(watched.await.expect("no panic").is_ok());
    while let Some(more) = output.recv().await {
        events += &more;
    }
    let events: Vec<_> = words(&events)
        .into_iter()
        .map(|line| line[1].to_owned())
        .collect();
    assert_eq!(events, ["present", "synced", "closed"]);
    let (_, code) = operators.run(&["drain", "--check"]).await;
    assert_eq!(code, ExitCode::SUCCESS);
    let (stats, _) = operators.run(&["stats", "--json"]).await;
    let stats: serde_json::Value = serde_json::from_str(&stats).expect("an object");
    assert_eq!(
        (&stats["ready"], &stats["tunnels_total"]),
        (&false.into(), &1.into())
    );
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_named() {
    let cli = Cli::try_parse_from(["tunnel", "stats", "--admin", "127.0.0.1:1"]).expect("legal");
    let error = run_to(cli.command, &mut Vec::new())
        .await
        .expect_err("nobody listens");
    let error = error.to_string();
    let named = "cannot reach the admin API at 127.0.0.1:1: ";
    assert!(error.starts_with(named), "{error}");
}
