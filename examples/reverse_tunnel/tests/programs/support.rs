//! The two programs, and replacements of either that the test controls.

use std::future::Future;

use example_support::test::echo_service_server::{EchoService, EchoServiceServer};
use example_support::testing::{Finished, PATIENCE, Program};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Endpoint, Server};
use tunnel_client::{ReverseTunnelServer, ReverseTunnelServerBuilder};
use tunnel_server::{TunnelChannel, TunnelServiceHandler};

const SERVER: &str = env!("CARGO_BIN_EXE_reverse-tunnel-server");
const CLIENT: &str = env!("CARGO_BIN_EXE_reverse-tunnel-client");

/// A gateway on a free port that accepts connections.
pub(crate) struct Gateway {
    pub(crate) program: Program,
    pub(crate) address: String,
}

impl Gateway {
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0")
    }

    pub(crate) fn start_at(address: &str) -> Self {
        let (host, _) = address.rsplit_once(':').expect("a port");
        let mut program = server(&["--address", address]);
        let port = program.wait_for("✓ Server listening on port ");
        let address = format!("{host}:{port}");
        program.wait_for("Waiting for client to connect with reverse tunnel...");
        Self { program, address }
    }

    /// Sends SIGINT and waits for a successful end.
    pub(crate) fn stop(self) -> Finished {
        self.program.interrupt();
        self.program.finish().expect_code(0)
    }

    pub(crate) fn client(&self, args: &[&str]) -> Program {
        client(&self.address, args)
    }

    /// A client that serves something else.
    pub(crate) fn stand_in<S: EchoService>(&self, service: S) -> ReverseTunnelServer {
        let service = EchoServiceServer::new(service);
        dial(&self.address).add_service(service).build()
    }
}

pub(crate) fn server(args: &[&str]) -> Program {
    Program::start(SERVER, args)
}

pub(crate) fn client(address: &str, args: &[&str]) -> Program {
    let args = [&["--address", address], args].concat();
    Program::start(CLIENT, &args)
}

pub(crate) fn dial(address: &str) -> ReverseTunnelServerBuilder {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    ReverseTunnelServer::builder(endpoint.expect("an address"))
}

/// A gateway that the test controls: by itself it makes no call and closes no
/// tunnel. Dropping it cuts its connections without a goodbye.
pub(crate) struct QuietGateway {
    pub(crate) handler: TunnelServiceHandler,
    pub(crate) address: String,
    runtime: Option<Runtime>,
}

impl QuietGateway {
    pub(crate) fn start() -> Self {
        Self::with(TunnelServiceHandler::builder().build())
    }

    pub(crate) fn with(handler: TunnelServiceHandler) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("some port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let serving = Server::builder()
            .add_service(handler.service())
            .serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(serving);
        let runtime = Some(runtime);
        Self {
            handler,
            address,
            runtime,
        }
    }

    /// Waits for something that happens here.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        let runtime = self.runtime.as_ref().expect("not dropped");
        let done = runtime.block_on(async { timeout(PATIENCE, future).await });
        done.expect("it happens")
    }

    /// Waits until a client has opened a tunnel.
    pub(crate) fn tunnel(&self) -> TunnelChannel {
        let ready = self.wait(self.handler.as_channel().wait_for_ready(PATIENCE));
        ready.expect("a tunnel");
        let mut tunnels = self.handler.all_reverse_tunnels();
        assert_eq!(tunnels.len(), 1);
        tunnels.remove(0)
    }
}

impl Drop for QuietGateway {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
