//! A wire that can be cut.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tonic::transport::{Channel, Endpoint};

/// Stands between a client and a server, and passes on what they say until it is cut.
pub(crate) struct Proxy {
    address: SocketAddr,
    accepting: JoinHandle<()>,
    connections: Mutex<mpsc::UnboundedReceiver<AbortHandle>>,
}

impl Proxy {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (new, connections) = mpsc::unbounded_channel();
        let accepting = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let connection = tokio::spawn(async move {
                    let mut far = TcpStream::connect(server).await?;
                    copy_bidirectional(&mut near, &mut far).await
                });
                let _ = new.send(connection.abort_handle());
            }
        });
        Self {
            address,
            accepting,
            connections: Mutex::new(connections),
        }
    }

    /// A connection through it.
    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address));
        let connected = endpoint.expect("a valid address").connect().await;
        connected.expect("the server accepts a connection")
    }

    /// Cuts all connections, as they are; nobody says goodbye.
    pub(crate) fn cut(&self) {
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while let Ok(connection) = connections.try_recv() {
            connection.abort();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}
