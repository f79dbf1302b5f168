//! Records the frames of both ends of a tunnel, as golden frames.
//!
//! `record-frames TARGET FILE TITLE` listens on a free port of the loopback interface, prints
//! `LISTENING PORT`, forwards tunnels to the target, and writes the recording when standard input
//! ends.

use std::process::ExitCode;

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tunnel_conformance::golden;
use tunnel_conformance::tap::Tap;

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [target, file, title] = args.as_slice() else {
        eprintln!("usage: record-frames HOST:PORT FILE TITLE");
        return ExitCode::FAILURE;
    };
    match record(target, file, title).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn record(target: &str, file: &str, title: &str) -> Result<(), Error> {
    let channel = Endpoint::from_shared(format!("http://{target}"))?.connect_lazy();
    let tap = Tap::new(channel);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("LISTENING {}", listener.local_addr()?.port());
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder().add_service(tap.clone());
    let mut input = tokio::io::stdin();
    let mut rest = Vec::new();
    tokio::select! {
        served = server.serve_with_incoming(incoming) => served?,
        ended = input.read_to_end(&mut rest) => drop(ended?),
    }
    std::fs::write(file, golden::write(title, &tap.recorded()))?;
    Ok(())
}
