//! A gateway and an agent of the program `tunnel`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::timeout;
use tunnel_process::{Process, Show};

/// The key of the agent.
pub(crate) const KEY: &str = "device";

/// The metadata with which a call names the key.
pub(crate) const KEY_METADATA: &str = "tunnel-key";

/// What stands behind a key in an authority.
const SUFFIX: &str = "tunnels.example";

/// The authority of the agent.
pub(crate) const AUTHORITY: &str = "device.tunnels.example";

/// How long the programs may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A gateway, and an agent that is connected to it. They are killed when dropped.
#[derive(Debug)]
pub(crate) struct Tunnel {
    _gateway: Process,
    clients: SocketAddr,
    _agent: Process,
}

impl Tunnel {
    /// Starts a gateway, and an agent before a server.
    pub(crate) async fn start(program: &Path, server: SocketAddr) -> Result<Self> {
        let started = timeout(START_TIMEOUT, Self::connect(program, server)).await;
        started.context("gateway and agent do not start in time")?
    }

    async fn connect(program: &Path, server: SocketAddr) -> Result<Self> {
        let mut gateway = Command::new(program);
        gateway.args(["gateway", "--authority-suffix", SUFFIX]);
        for listener in ["agents", "clients", "admin", "http"] {
            gateway.args([&format!("--{listener}-listen"), "127.0.0.1:0"]);
        }
        let mut gateway = Process::start(gateway.stdin(Stdio::null()), Show::Nothing)?;
        let agents = listens(&mut gateway, "agents").await?;
        let clients = listens(&mut gateway, "clients").await?;
        let mut agent = Command::new(program);
        agent.args(["agent", "--key", KEY, "--gateway", &agents.to_string()]);
        agent.args(["--to", &server.to_string()]);
        let mut agent = Process::start(agent.stdin(Stdio::null()), Show::Nothing)?;
        while let Some(line) = agent.next_line_async().await {
            if line.text.contains("connected") {
                return Ok(Self {
                    _gateway: gateway,
                    clients,
                    _agent: agent,
                });
            }
        }
        anyhow::bail!("the agent has ended; {}", agent.last_words())
    }

    /// Where clients call.
    pub(crate) fn clients(&self) -> SocketAddr {
        self.clients
    }
}

/// The address at which a gateway listens for somebody.
async fn listens(gateway: &mut Process, name: &str) -> Result<SocketAddr> {
    let prefix = format!("{name}: listening at ");
    Ok(gateway.next_stdout_after(&prefix).await?.parse()?)
}
