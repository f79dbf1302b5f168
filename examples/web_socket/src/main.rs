//! Calls through a tunnel over a WebSocket: no gRPC, no tonic.
//!
//! Both ends run in this program, connected by a real socket. The client could as well be a
//! browser's page, or stand behind a proxy that lets nothing but WebSockets through.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use custom_transport::demo;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{accept_async, client_async};
use web_socket::byte_stream;

/// Makes calls through a tunnel over a WebSocket, with tunnel-core alone: no tonic.
#[derive(Parser)]
#[command(name = "web-socket")]
struct Args {}

#[tokio::main]
async fn main() -> ExitCode {
    let Args {} = Args::parse();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .context("cannot listen on a TCP port")?;
    let address = listener.local_addr()?;
    let url = format!("ws://{address}/tunnel");
    println!("Listening on {url}, a WebSocket");
    let client = async {
        let tcp = TcpStream::connect(address).await?;
        // A tunnel batches its frames itself, so Nagle's algorithm would only add delay.
        tcp.set_nodelay(true)?;
        let (socket, _) = client_async(&url, tcp).await?;
        anyhow::Ok(socket)
    };
    let server = async {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        Ok(accept_async(tcp).await?)
    };
    let (client, server) =
        tokio::try_join!(client, server).with_context(|| format!("cannot connect to {url}"))?;
    demo::run(byte_stream(client), byte_stream(server)).await
}
