//! Calls through a tunnel over a plain socket: no gRPC, no HTTP, no tonic.
//!
//! Both ends run in this program, connected by a real socket.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use custom_transport::demo;
use tokio::net::{TcpListener, TcpStream};

/// Makes calls through a tunnel over a Unix socket or a TCP connection, with
/// tunnel-core alone: no tonic, no HTTP.
#[derive(Parser)]
#[command(name = "custom-transport")]
struct Args {
    /// Use a TCP connection instead of a Unix socket.
    #[arg(long)]
    tcp: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<()> {
    #[cfg(unix)]
    if !args.tcp {
        return over_unix_socket().await;
    }
    let _ = args;
    over_tcp().await
}

#[cfg(unix)]
async fn over_unix_socket() -> Result<()> {
    use tokio::net::{UnixListener, UnixStream};

    let path = std::env::temp_dir().join(format!("custom-transport-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path)
        .with_context(|| format!("cannot listen on {}", path.display()))?;
    println!("Listening on {}, a Unix socket", path.display());
    let connected = tokio::try_join!(UnixStream::connect(&path), listener.accept());
    // The socket's name is not needed any more.
    let _ = std::fs::remove_file(&path);
    let (client, (server, _)) = connected.context("cannot connect to the socket")?;
    demo::run(client, server).await
}

async fn over_tcp() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .context("cannot listen on a TCP port")?;
    let address = listener.local_addr()?;
    println!("Listening on {address}, a TCP port");
    let (client, (server, _)) = tokio::try_join!(TcpStream::connect(address), listener.accept())
        .with_context(|| format!("cannot connect to {address}"))?;
    // A tunnel batches its frames itself, so Nagle's algorithm would only add delay.
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    demo::run(client, server).await
}
