//! A gRPC server that nobody can dial is reached by its name, in three commands.
//!
//! The server is Python, and called by a Python client too; without Python one in Rust stands in for it. Neither server
//! nor client knows of tunnels. This program shows each command that it runs.

mod server;

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use tokio::time::timeout;
use tunnel_process::{Process, Show, Signal};

use server::{Language, Server};

/// The name of the device.
const KEY: &str = "device-7";

/// The method that is called.
const METHOD: &str = "test.EchoService/Echo";

/// How long a program may take to start or to end.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Exposes a gRPC server of any language by an agent, and calls it through a gateway.
#[derive(Parser)]
struct Args {
    /// The language of the server. Default: Python if this machine has it with its module venv, else Rust.
    #[arg(long)]
    server: Option<Language>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let server = Server::start(args.server).await?;
    println!(
        "A gRPC server in {} listens at {}.\n",
        server.language, server.address
    );

    let gateway = [
        "gateway",
        "--agents-listen",
        "127.0.0.1:0",
        "--clients-listen",
        "127.0.0.1:0",
    ];
    let others = [
        "--admin-listen",
        "127.0.0.1:0",
        "--http-listen",
        "127.0.0.1:0",
    ];
    let mut gateway = start(&[&gateway[..], &others[..]].concat())?;
    let agents = listens(&mut gateway, "agents").await?;
    let clients = listens(&mut gateway, "clients").await?;

    let mut agent = start(&[
        "agent",
        "--gateway",
        &agents,
        "--key",
        KEY,
        "--to",
        &server.address,
    ])?;
    timeout(TIMEOUT, connected(&mut agent))
        .await
        .context("the agent does not connect")??;

    let hello = r#"{"message":"Hello"}"#;
    for call in [
        &["call", "--gateway", &clients, KEY, "list"][..],
        &["call", "--gateway", &clients, KEY, METHOD, "-d", hello][..],
    ] {
        let output = shown(call)?.output().context("cannot call")?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        print!("{}", String::from_utf8_lossy(&output.stdout));
    }
    if let Some(mut client) = server.client(&clients, KEY) {
        println!("$ python client.py {clients} {KEY}");
        let output = client.output().context("cannot start the client")?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        print!("{}", String::from_utf8_lossy(&output.stdout));
    }

    for program in [&mut agent, &mut gateway] {
        program.stop(Signal::Terminate, TIMEOUT)?;
    }
    println!("\n✓ A {} server was called by its name", server.language);
    Ok(())
}

/// The program `tunnel` with arguments, which are shown.
fn shown(arguments: &[&str]) -> Result<Command> {
    let quoted = arguments
        .iter()
        .map(|argument| match argument.contains('"') {
            true => format!("'{argument}'"),
            false => (*argument).to_owned(),
        });
    println!("$ tunnel {}", quoted.collect::<Vec<_>>().join(" "));
    let this = std::env::current_exe().context("cannot tell where this program is")?;
    let path = this
        .with_file_name("tunnel")
        .with_extension(std::env::consts::EXE_EXTENSION);
    ensure!(
        path.is_file(),
        "there is no {}: cargo build -p tunnel-cli",
        path.display()
    );
    let mut command = Command::new(path);
    // The gateway warns that nothing here is secret. That is so on one machine.
    command
        .args(["--log", "error"])
        .args(arguments)
        .stdin(Stdio::null());
    Ok(command)
}

fn start(arguments: &[&str]) -> Result<Process> {
    Process::start(&mut shown(arguments)?, Show::Errors)
}

/// The address at which a program listens for somebody.
async fn listens(program: &mut Process, name: &str) -> Result<String> {
    program
        .next_stdout_after(&format!("{name}: listening at "))
        .await
}

/// Waits until an agent says that it is connected.
async fn connected(agent: &mut Process) -> Result<()> {
    loop {
        if agent.next_stdout_line().await?.contains("connected") {
            return Ok(());
        }
    }
}
