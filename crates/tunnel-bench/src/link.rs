//! A long link: a TCP proxy in user space that delays bytes in each direction, at any rate.
//!
//! Invariant: the proxy runs on its own thread, so that the orchestrator's work does not lengthen
//! the delay.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tunnel_conformance::FaultProxy;

/// A long link to a port on this host. It ends when this value is dropped.
///
/// Up to [`FaultProxy::CAPACITY`] bytes are in flight in each direction: 1.3 GB/s at 50 ms.
#[derive(Debug)]
pub(crate) struct Delay {
    port: u16,
    /// Ends the thread when dropped.
    _alive: oneshot::Sender<()>,
}

impl Delay {
    /// Starts the proxy.
    pub(crate) async fn start(target_port: u16, each_way: Duration) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (started, port) = oneshot::channel();
        let (alive, over) = oneshot::channel();
        thread::Builder::new()
            .name("delay".into())
            .spawn(move || run(&runtime, target_port, each_way, started, over))?;
        Ok(Self {
            port: port.await.context("the delay proxy did not start")?,
            _alive: alive,
        })
    }

    /// The port for clients.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

fn run(
    runtime: &Runtime,
    target_port: u16,
    each_way: Duration,
    started: oneshot::Sender<u16>,
    over: oneshot::Receiver<()>,
) {
    runtime.block_on(async {
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, target_port));
        let proxy = FaultProxy::to(target).await;
        proxy.set_delay(each_way);
        if started.send(proxy.address().port()).is_ok() {
            // Nothing is ever sent on the channel: this returns when the sender is dropped.
            let _ = over.await;
        }
    });
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Echoes the bytes of one connection.
    async fn echo() -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let (mut from, mut to) = socket.split();
            tokio::io::copy(&mut from, &mut to).await
        });
        port
    }

    #[tokio::test]
    async fn delayed_bytes_arrive_unchanged() {
        let delay = Delay::start(echo().await, Duration::from_millis(5)).await;
        let delay = delay.unwrap();
        let client = TcpStream::connect(("127.0.0.1", delay.port())).await;
        let (mut from, mut to) = client.unwrap().into_split();
        let sent: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
        let writing = async {
            to.write_all(&sent).await.unwrap();
            to.shutdown().await.unwrap();
        };
        let mut echoed = Vec::new();
        let (read, ()) = tokio::join!(from.read_to_end(&mut echoed), writing);
        read.unwrap();
        assert!(echoed == sent, "other bytes");
    }

    #[tokio::test]
    async fn a_link_that_is_dropped_ends_its_connections() {
        let delay = Delay::start(echo().await, Duration::ZERO).await.unwrap();
        let client = TcpStream::connect(("127.0.0.1", delay.port())).await;
        let mut client = client.unwrap();
        client.write_all(b"?").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
        drop(delay);
        let count = client.read(&mut [0]).await;
        assert!(matches!(count, Ok(0) | Err(_)), "it goes on");
    }
}
