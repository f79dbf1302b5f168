//! tonic over loopback TCP.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use futures::future::{BoxFuture, FutureExt};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};

use super::{Host, Offer, Path, TestChannel};

/// A tonic client and a tonic server, without a tunnel.
#[derive(Clone, Copy, Debug)]
pub struct PlainTcpPath;

impl Path for PlainTcpPath {
    fn host(&self, offer: Offer) -> BoxFuture<'_, Box<dyn Host>> {
        async {
            let server = TcpServer::start(Server::builder(), offer.routes).await;
            Box::new(server) as Box<dyn Host>
        }
        .boxed()
    }
}

impl Host for TcpServer {
    fn connect(&self) -> BoxFuture<'_, TestChannel> {
        async { TestChannel::new(self.channel().await) }.boxed()
    }

    fn kill(&self) {
        TcpServer::kill(self);
    }
}

/// A tonic server on a free port of the loopback interface. It has its own runtime, so that killing
/// it ends all its connections, handlers and tasks.
#[derive(Debug)]
pub struct TcpServer {
    address: SocketAddr,
    runtime: Mutex<Option<Runtime>>,
}

impl TcpServer {
    /// Starts a server with these routes. It runs until it is killed or dropped.
    pub async fn start(server: Server, routes: Routes) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), server, routes).await
    }

    /// The same at an address, for servers with one port and several addresses.
    pub async fn start_at(address: SocketAddr, mut server: Server, routes: Routes) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("far-end")
            .enable_all()
            .build()
            .expect("a runtime for the far end");
        let listener = runtime
            .spawn(TcpListener::bind(address))
            .await
            .expect("the far end binds")
            .expect("a free port");
        let address = listener
            .local_addr()
            .expect("a bound listener has an address");
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        runtime.spawn(server.add_routes(routes).serve_with_incoming(incoming));
        let runtime = Mutex::new(Some(runtime));
        Self { address, runtime }
    }

    /// The address on which the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connects to the server.
    pub async fn channel(&self) -> Channel {
        self.endpoint()
            .connect()
            .await
            .expect("the far end accepts a connection")
    }

    /// An endpoint for the server, for paths with their own options.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).expect("a valid address")
    }

    /// The runtime of the server; `None` after it was killed.
    pub fn runtime(&self) -> Option<Handle> {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        runtime.as_ref().map(|runtime| runtime.handle().clone())
    }

    /// Drops all tasks of the server at once, and with them its sockets.
    pub fn kill(&self) {
        let mut runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        self.kill();
    }
}
