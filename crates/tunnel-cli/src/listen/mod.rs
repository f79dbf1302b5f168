//! The listeners for agents and clients: TCP, the PROXY protocol and TLS.
//!
//! Handshakes run concurrently. One that fails or takes too long ends its connection, never the listener. An address
//! takes at most a quarter of the handshakes and of the connections; its further connections are closed.

mod conn;
mod first;
mod proxy;
mod shares;
mod tls;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::stream::{self, BoxStream, Stream, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;

pub(crate) use conn::Conn;
pub(crate) use first::Punctual;
pub(crate) use shares::network;
use shares::{Share, Shares};
pub(crate) use tls::{ClientAuth, Tls, TlsFiles};

/// How long the PROXY header and the TLS handshake of a connection may take together.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a handshake may take while others wait for its place.
const SHORT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a connection may take to send its first byte after the handshake.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after an error to accept that has nothing to do with a connection, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a listener listens.
#[derive(Clone, Debug)]
pub(crate) struct ListenOptions {
    /// TLS, if it is on.
    pub(crate) tls: Option<TlsFiles>,
    /// Handshakes at once. Connections beyond wait in the kernel's queue.
    pub(crate) max_handshakes: usize,
    /// Whether each connection begins with a header of the PROXY protocol, version 1 or 2. Only for a listener that
    /// nobody but a load balancer can reach: the header is believed. A connection without it is closed.
    pub(crate) proxy_protocol: bool,
}

/// A bound listener.
#[derive(Debug)]
pub(crate) struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
    max_handshakes: usize,
    /// An address takes at most a quarter of them.
    max_connections: usize,
    proxy_protocol: bool,
}

/// Connections for tonic's `serve_with_incoming`. The streams do not end and have no errors.
pub(crate) enum Incoming {
    Plain(BoxStream<'static, io::Result<Punctual<Conn>>>),
    Tls(BoxStream<'static, io::Result<Punctual<TlsStream<Conn>>>>),
}

impl Listener {
    /// Reads the files of TLS and binds the address.
    pub(crate) async fn bind(address: SocketAddr, options: ListenOptions) -> Result<Self> {
        let tls = options.tls.map(Tls::open).transpose()?;
        let tcp = TcpListener::bind(address).await;
        let tcp = tcp.with_context(|| format!("cannot listen at {address}"))?;
        Ok(Self {
            address: tcp.local_addr()?,
            tcp,
            tls: tls.map(Arc::new),
            max_handshakes: options.max_handshakes.max(1),
            max_connections: max_connections(),
            proxy_protocol: options.proxy_protocol,
        })
    }

    /// The address, with the port that was chosen for port 0.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The TLS part, to be reloaded.
    pub(crate) fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.clone()
    }

    /// The connections.
    pub(crate) fn incoming(self) -> Incoming {
        let max_handshakes = self.max_handshakes;
        let proxied = self.proxy_protocol;
        let shares = Shares::of(self.max_connections);
        let accepted = accept(self.tcp);
        match self.tls {
            Some(tls) => {
                let handshaking = Shares::of(max_handshakes);
                let shake = move |conn| {
                    let (tls, shares) = (tls.clone(), shares.clone());
                    let handshaking = handshaking.clone();
                    async move {
                        let mut conn = proxy_header(conn, proxied).await?;
                        let _share = share(&conn, &handshaking, "handshakes")?;
                        conn.set_share(share(&conn, &shares, "connections")?);
                        tls.accept(conn).await
                    }
                };
                let done = handshakes(accepted, max_handshakes, shake);
                Incoming::Tls(done.map(punctual).boxed())
            }
            None if proxied => {
                let shake = move |conn| {
                    let shares = shares.clone();
                    async move {
                        let mut conn = proxy_header(conn, true).await?;
                        conn.set_share(share(&conn, &shares, "connections")?);
                        Ok(conn)
                    }
                };
                let done = handshakes(accepted, max_handshakes, shake);
                Incoming::Plain(done.map(punctual).boxed())
            }
            None => {
                let limited = accepted.filter_map(move |mut conn| {
                    let limited = match share(&conn, &shares, "connections") {
                        Ok(share) => {
                            conn.set_share(share);
                            Some(conn)
                        }
                        Err(error) => {
                            tracing::info!(peer = %conn.peer(), %error, "connection refused");
                            None
                        }
                    };
                    std::future::ready(limited)
                });
                Incoming::Plain(limited.map(punctual).boxed())
            }
        }
    }
}

fn punctual<S>(stream: S) -> io::Result<Punctual<S>> {
    Ok(Punctual::new(stream, FIRST_BYTE_TIMEOUT))
}

/// How many connections this process can have.
#[cfg(unix)]
fn max_connections() -> usize {
    let limit = rlimit::Resource::NOFILE.get_soft().ok();
    limit
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(usize::MAX)
}

#[cfg(not(unix))]
fn max_connections() -> usize {
    usize::MAX
}

/// Takes a part of the share of a connection's address. Addresses of this machine have no share: all connections may
/// come from a local proxy.
fn share(conn: &Conn, shares: &Arc<Shares>, what: &str) -> io::Result<Option<Share>> {
    let address = conn.remote().ip();
    if address.to_canonical().is_loopback() {
        return Ok(None);
    }
    match shares.take(address) {
        Some(share) => Ok(Some(share)),
        None => Err(io::Error::other(format!(
            "{address} has its share of all {what}"
        ))),
    }
}

/// Accepts connections forever.
fn accept(tcp: TcpListener) -> impl Stream<Item = Conn> + Send {
    stream::unfold((tcp, false), |(tcp, mut failing)| async move {
        loop {
            let error = match tcp.accept().await {
                Ok((stream, peer)) => match prepare(stream, peer) {
                    Ok(conn) => return Some((conn, (tcp, false))),
                    Err(_) => continue,
                },
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionRefused => {}
                _ => {
                    if !failing {
                        tracing::warn!(%error, "cannot accept connections; trying again");
                    }
                    failing = true;
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

fn prepare(stream: TcpStream, peer: SocketAddr) -> io::Result<Conn> {
    stream.set_nodelay(true)?;
    Ok(Conn::new(stream, peer))
}

async fn proxy_header(mut conn: Conn, proxied: bool) -> io::Result<Conn> {
    if proxied && let Some(source) = proxy::read_source(conn.stream()).await? {
        conn.set_remote(source);
    }
    Ok(conn)
}

/// Runs a handshake for each connection, and yields those that succeed.
///
/// When all places are taken, the oldest handshake ends if it has gone on for [`SHORT_HANDSHAKE_TIMEOUT`].
fn handshakes<T, S, F>(
    accepted: impl Stream<Item = Conn> + Send + 'static,
    max_handshakes: usize,
    shake: S,
) -> impl Stream<Item = T> + Send
where
    T: Send + 'static,
    S: Fn(Conn) -> F + Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut accepted = Box::pin(accepted);
        // Tasks, so that handshakes use all cores.
        let mut running = JoinSet::new();
        let mut began: VecDeque<(Instant, AbortHandle)> = VecDeque::new();
        loop {
            while began.front().is_some_and(|(_, task)| task.is_finished()) {
                began.pop_front();
            }
            if began.len() > 2 * max_handshakes {
                began.retain(|(_, task)| !task.is_finished());
            }
            let full = running.len() >= max_handshakes;
            let late = began
                .front()
                .map(|(began, _)| *began + SHORT_HANDSHAKE_TIMEOUT);
            tokio::select! {
                conn = accepted.next(), if !full => {
                    let Some(conn) = conn else { break };
                    let task = running.spawn(handshake(conn.peer(), shake(conn)));
                    began.push_back((Instant::now(), task));
                }
                Some(done) = running.join_next() => {
                    if let Ok(Some(done)) = done
                        && sender.send(done).await.is_err()
                    {
                        return;
                    }
                }
                () = tokio::time::sleep_until(late.unwrap_or_else(Instant::now)), if full && late.is_some() => {
                    if let Some((_, task)) = began.pop_front() {
                        task.abort();
                    }
                }
                () = sender.closed() => return,
            }
        }
        while let Some(done) = running.join_next().await {
            if let Ok(Some(done)) = done
                && sender.send(done).await.is_err()
            {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

async fn handshake<T>(peer: SocketAddr, shake: impl Future<Output = io::Result<T>>) -> Option<T> {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, shake).await {
        Ok(Ok(done)) => Some(done),
        Ok(Err(error)) => {
            tracing::info!(%peer, %error, "handshake failed");
            None
        }
        Err(_) => {
            tracing::info!(%peer, "handshake took too long");
            None
        }
    }
}

#[cfg(test)]
mod tests;
