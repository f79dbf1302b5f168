//! Requests of HTTP/1 for health checks.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a program may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The status code and the body of a response.
pub(crate) async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> Result<(u16, String)> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await?;
        anyhow::Ok(response)
    };
    let response = timeout(TIMEOUT, ask).await.context("no answer")??;
    let (head, body) = response.split_once("\r\n\r\n").context("no response")?;
    let code = head.split_whitespace().nth(1).context("no status")?;
    Ok((code.parse()?, body.to_owned()))
}

/// Whether a health check succeeds.
pub(crate) async fn is_ok(address: SocketAddr, path: &str) -> bool {
    let answer = ask(address, "GET", path, "").await;
    answer.is_ok_and(|(code, _)| code == 200)
}
