//! The listening end of an [`Address`].

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow};
use futures::stream::{Stream, select_all};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tonic::transport::server::TcpIncoming;

use crate::address::Address;
use crate::exit::describe;

/// Listens on all IP addresses of an address.
///
/// On most machines `localhost` has two, and a client may try either first. If this
/// took only one, another program could listen on the other.
#[derive(Debug)]
pub struct Listener {
    listeners: Vec<TcpListener>,
    port: u16,
}

impl Listener {
    /// Starts listening.
    ///
    /// # Errors
    ///
    /// On one line: the address and why it failed, such as an unknown host or a port
    /// in use.
    pub async fn bind(address: &Address) -> Result<Self> {
        let what = || format!("cannot listen on {address}");
        let host = (address.host(), address.port());
        let resolved: BTreeSet<_> = lookup_host(host).await.with_context(what)?.collect();
        bind_all(resolved, address.port()).await.with_context(what)
    }

    /// The port, also if any free one was requested.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The incoming connections for a tonic server.
    pub fn incoming(self) -> impl Stream<Item = io::Result<TcpStream>> {
        let incoming = |listener| TcpIncoming::from(listener).with_nodelay(Some(true));
        select_all(self.listeners.into_iter().map(incoming))
    }
}

async fn bind_all(addresses: BTreeSet<SocketAddr>, mut port: u16) -> Result<Listener> {
    let mut listeners = Vec::new();
    let mut absent = None;
    for mut address in addresses {
        address.set_port(port);
        match TcpListener::bind(address).await {
            Ok(listener) => {
                // The first address chooses a free port.
                port = listener.local_addr()?.port();
                listeners.push(listener);
            }
            // `localhost` may name an address family that this machine lacks.
            Err(error) if is_absent(&error) => absent = Some(error),
            Err(error) => return Err(anyhow!(describe(&error))),
        }
    }
    match (listeners.is_empty(), absent) {
        (false, _) => Ok(Listener { listeners, port }),
        (true, Some(error)) => Err(anyhow!(describe(&error))),
        (true, None) => Err(anyhow!("the host has no address")),
    }
}

fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, Unsupported};

    // Without IPv6 in the kernel the error has no `ErrorKind`.
    let no_such_family = cfg!(target_os = "linux") && error.raw_os_error() == Some(97);
    matches!(error.kind(), AddrNotAvailable | Unsupported) || no_such_family
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::net::TcpStream;

    use super::{Address, Listener};

    fn address(text: &str) -> Address {
        text.parse().expect(text)
    }

    #[tokio::test]
    async fn the_port_that_was_free_is_the_one_that_accepts() {
        let listener = Listener::bind(&address("localhost:0"))
            .await
            .expect("some port is free");
        let port = listener.port();
        assert_ne!(port, 0);
        let mut incoming = Box::pin(listener.incoming());
        let client = TcpStream::connect(("localhost", port));
        let (client, server) = tokio::join!(client, incoming.next());
        client.expect("it connects");
        server.expect("it listens on").expect("it accepts");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_an_error_on_one_line() {
        let taken = Listener::bind(&address("127.0.0.1:0"))
            .await
            .expect("some port is free");
        let address = address(&format!("localhost:{}", taken.port()));
        let error = Listener::bind(&address).await.expect_err("it is taken");
        let expected = format!("cannot listen on {address}: address in use");
        assert_eq!(format!("{error:#}"), expected);
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_an_error() {
        let error = Listener::bind(&address("192.0.2.1:0"))
            .await
            .expect_err("not ours");
        assert_eq!(
            format!("{error:#}"),
            "cannot listen on 192.0.2.1:0: address not available"
        );
    }
}
