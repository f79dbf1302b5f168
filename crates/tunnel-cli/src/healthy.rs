//! `tunnel healthy`: the health check of a container without other programs.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long the gateway may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Ask a gateway's /healthz, and fail unless it answers 200.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the gateway answers over HTTP.
    #[arg(
        long,
        env = "TUNNEL_HTTP_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:7003"
    )]
    http: SocketAddr,
    /// Ask /readyz instead: not healthy during a drain.
    #[arg(long)]
    ready: bool,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let page = match args.ready {
        true => "readyz",
        false => "healthz",
    };
    let status = tokio::time::timeout(TIMEOUT, status(args.http, page)).await;
    let status = status
        .context("no answer in time")
        .and_then(|status| status)
        .with_context(|| format!("http://{}/{page}", args.http))?;
    println!("{status}");
    Ok(match status.contains(" 200 ") {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The status line of a page.
async fn status(mut address: SocketAddr, page: &str) -> Result<String> {
    // A listener at all addresses is asked at loopback.
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    let mut connection = TcpStream::connect(address).await?;
    let request = format!("GET /{page} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let line = answer.lines().next().context("an empty answer")?;
    Ok(line.to_owned())
}
