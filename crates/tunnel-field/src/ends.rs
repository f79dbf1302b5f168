//! The ends of tunnels, in this process or as child processes that can be frozen.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Subcommand;
use tokio::io::AsyncReadExt;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::transport::{Endpoint, Server};
use tunnel_client::{
    Backoff, ForwardTunnel, LinksHandle, ReverseTunnelServer, TunnelChannel, endpoint_for_tunnels,
};
use tunnel_conformance::client::{Outcome, run as call_with};
use tunnel_conformance::payload::request;
use tunnel_conformance::proto::Script;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::service::scripted;
use tunnel_conformance::{Client, Kind, Probe, TcpServer, TestChannel};
use tunnel_process::{Process, Show};
use tunnel_server::{AffinityKey, Opening, TunnelServiceHandler, server_for_tunnels};

/// The metadata key that names a device.
const KEY: &str = "device";

/// The polling interval for conditions without an event.
const LOOK: Duration = Duration::from_millis(20);

/// The role of a child process: one end of tunnels.
#[derive(Debug, Subcommand)]
pub(crate) enum Child {
    /// Listen for forward and reverse tunnels.
    #[command(hide = true)]
    Gateway,
    /// Serve through a reverse tunnel.
    #[command(hide = true)]
    Device { address: SocketAddr, key: String },
    /// Open a forward tunnel and hold it.
    #[command(hide = true)]
    Caller { address: SocketAddr },
}

/// Runs a role until standard input ends.
pub(crate) async fn run(child: Child) -> Result<()> {
    let probe = Probe::default();
    match child {
        Child::Gateway => {
            let gateway = Gateway::start(&probe).await;
            println!("READY {}", gateway.address());
            input_ends().await;
        }
        Child::Device { address, key } => {
            let device = Device::start(address, &key, &probe)?;
            device.handle.connected().await?;
            println!("READY");
            input_ends().await;
        }
        Child::Caller { address } => {
            let tunnel = open_forward(address).await?;
            println!("READY");
            input_ends().await;
            drop(tunnel);
        }
    }
    Ok(())
}

async fn input_ends() {
    let mut rest = Vec::new();
    // Treat a read error like the end of the input.
    let _ = tokio::io::stdin().read_to_end(&mut rest).await;
}

/// A server that accepts forward and reverse tunnels.
pub(crate) struct Gateway {
    pub(crate) handler: TunnelServiceHandler,
    server: TcpServer,
}

impl Gateway {
    pub(crate) async fn start(probe: &Probe) -> Self {
        let handler = TunnelServiceHandler::builder()
            .affinity_key(|opening: &Opening| opening.metadata_str(KEY).map(AffinityKey::from))
            .add_service(scripted(probe))
            .build();
        let routes = Routes::new(handler.service());
        let server = TcpServer::start(server_for_tunnels(Server::builder()), routes).await;
        Self { handler, server }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// A client for one device.
    pub(crate) fn client(&self, key: &str) -> Client {
        TestServiceClient::new(TestChannel::new(self.handler.key_as_channel(key)))
    }

    /// Waits until a device has this many tunnels to the gateway.
    pub(crate) async fn has(&self, key: &str, count: usize) {
        while self.handler.tunnels_of_key(key).len() != count {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A device that keeps one reverse tunnel open.
pub(crate) struct Device {
    pub(crate) handle: LinksHandle,
    running: tokio::task::JoinHandle<()>,
}

impl Device {
    pub(crate) fn start(address: SocketAddr, key: &str, probe: &Probe) -> Result<Self> {
        let mut metadata = MetadataMap::new();
        metadata.insert(KEY, key.parse()?);
        let server = ReverseTunnelServer::builder(Endpoint::from_shared(url(address))?)
            .metadata(metadata)
            .backoff(Backoff::default().initial(Duration::from_millis(100)))
            .add_service(scripted(probe))
            .build();
        let handle = server.handle();
        let running = tokio::spawn(async move {
            server.run().await;
        });
        Ok(Self { handle, running })
    }

    /// Waits until the device has noticed the loss of its tunnel.
    pub(crate) async fn lost(&self) {
        while self.handle.links().iter().any(|link| link.is_connected()) {
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// Opens a forward tunnel on a new connection.
pub(crate) async fn open_forward(address: SocketAddr) -> Result<TunnelChannel> {
    let endpoint = endpoint_for_tunnels(Endpoint::from_shared(url(address))?);
    let channel = endpoint.connect().await.context("cannot connect")?;
    ForwardTunnel::new(channel)
        .open()
        .await
        .context("cannot open a tunnel")
}

pub(crate) fn client(tunnel: &TunnelChannel) -> Client {
    TestServiceClient::new(TestChannel::new(tunnel.clone()))
}

/// Makes a unary call, which must succeed.
pub(crate) async fn echo(client: &Client) -> Result<()> {
    let script = Script::named("echo").echo_all();
    let outcome: Outcome = call_with(client, Kind::Unary, &script, vec![request(1, 100)]).await;
    outcome.end.map(drop).context("a call failed")
}

/// Starts a child process with one end of tunnels and waits until it is ready. Returns the process
/// and the text after `READY` in its first line. The process can be frozen; it ends when it is
/// dropped or this process ends.
pub(crate) async fn start_process(args: &[&str]) -> Result<(Process, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(args).stdin(Stdio::piped());
    let mut process = Process::start(&mut command, Show::Errors)?.named("a child process");
    let said = process.next_stdout_line().await?;
    let ready = said.strip_prefix("READY");
    let ready = ready.with_context(|| format!("a child process printed {said:?}, not READY"))?;
    let ready = ready.trim().to_owned();
    Ok((process, ready))
}
