//! The processes of a run. They end when they are dropped.

use std::ffi::OsString;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tonic::transport::{Channel, Endpoint};
use tunnel_process::{Process, Show};

use crate::certificates::Certificates;
use crate::load::{self, Target};

/// How long something may take to start.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Starts processes.
pub(crate) struct Programs;

/// A running gateway.
pub(crate) struct Gateway {
    process: Process,
    pub(crate) agents: SocketAddr,
    clients: SocketAddr,
}

/// The address at which a program listens for somebody.
async fn listens(process: &mut Process, name: &str) -> Result<SocketAddr> {
    let prefix = format!("{name}: listening at ");
    Ok(process.next_stdout_after(&prefix).await?.parse()?)
}

fn this() -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.stdin(Stdio::piped());
    Ok(command)
}

fn tunnel() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tunnel"));
    command.stdin(Stdio::null()).args(["--log", "warn"]);
    command
}

impl Programs {
    /// The server that is called.
    pub(crate) async fn server(&self) -> Result<(Process, SocketAddr)> {
        let mut process = Process::start(this()?.arg("--serve"), Show::Errors)?;
        let address = listens(&mut process, "server").await?;
        Ok((process, address))
    }

    /// A gateway, with mutual TLS if there are certificates.
    pub(crate) async fn gateway(&self, certificates: Option<&Certificates>) -> Result<Gateway> {
        self.gateway_with(certificates, &[]).await
    }

    /// A gateway with more arguments.
    pub(crate) async fn gateway_with(
        &self,
        certificates: Option<&Certificates>,
        more: &[OsString],
    ) -> Result<Gateway> {
        let mut command = tunnel();
        command.arg("gateway").args(more);
        for listener in ["agents", "clients", "admin", "http"] {
            command.args([&format!("--{listener}-listen"), "127.0.0.1:0"]);
        }
        command.args(["--max-tunnels-of-address", "1000000"]);
        if let Some(certificates) = certificates {
            for (flag, file) in [
                ("--tls-cert", "localhost"),
                ("--tls-key", "localhost-key"),
                ("--agents-ca", "ca"),
                ("--clients-ca", "ca"),
            ] {
                command.arg(flag).arg(certificates.path(file));
            }
        }
        let mut process = Process::start(&mut command, Show::Nothing)?;
        let agents = listens(&mut process, "agents").await?;
        let clients = listens(&mut process, "clients").await?;
        Ok(Gateway {
            process,
            agents,
            clients,
        })
    }

    /// An agent of a server, which is connected.
    pub(crate) async fn agent(
        &self,
        gateway: &Gateway,
        key: &str,
        server: SocketAddr,
        certificates: Option<&Certificates>,
    ) -> Result<Process> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tunnel"));
        command.stdin(Stdio::null()).args(["agent", "--key", key]);
        command.args([
            "--gateway",
            &gateway.agents.to_string(),
            "--to",
            &server.to_string(),
        ]);
        if let Some(certificates) = certificates {
            for (flag, file) in [
                ("--ca", "ca"),
                ("--cert", key),
                ("--cert-key", &format!("{key}-key")),
            ] {
                command.arg(flag).arg(certificates.path(file));
            }
            command.args(["--server-name", "localhost"]);
        }
        let process = Process::start(&mut command, Show::Nothing)?;
        let channel = gateway.channel(certificates).await?;
        answers(&Target::to(channel, Some("device"))).await?;
        Ok(process)
    }

    /// Devices that are connected.
    pub(crate) async fn devices(
        &self,
        count: usize,
        first: usize,
        gateway: SocketAddr,
        certificates: Option<&Certificates>,
    ) -> Result<Process> {
        let mut command = this()?;
        command
            .arg("--open")
            .args([count.to_string(), first.to_string(), gateway.to_string()]);
        if let Some(certificates) = certificates {
            command.arg(certificates.directory());
        }
        let mut process = Process::start(&mut command, Show::Errors)?;
        match process.next_stdout_line().await?.as_str() {
            "open" => Ok(process),
            line => bail!("unexpected: {line}"),
        }
    }

    /// A TCP tunnel to a server: its processes, and where it listens.
    pub(crate) async fn rathole(
        &self,
        program: &str,
        server: SocketAddr,
    ) -> Result<((Process, Process, tempfile::TempDir), SocketAddr)> {
        let (control, listen) = (free()?, free()?);
        let directory = tempfile::tempdir()?;
        let start = |name: &str, text: String| {
            let file = directory.path().join(name);
            fs::write(&file, text)?;
            let mut command = Command::new(program);
            Process::start(command.arg(file).stdin(Stdio::null()), Show::Nothing)
        };
        let far = start(
            "server.toml",
            format!(
                "[server]\nbind_addr = \"{control}\"\ndefault_token = \"t\"\n[server.services.s]\nbind_addr = \"{listen}\"\nnodelay = true\n"
            ),
        )?;
        let near = start(
            "client.toml",
            format!(
                "[client]\nremote_addr = \"{control}\"\ndefault_token = \"t\"\n[client.services.s]\nlocal_addr = \"{server}\"\nnodelay = true\n"
            ),
        )?;
        Ok(((far, near, directory), listen))
    }
}

/// An address that nobody listens at.
pub(crate) fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Waits until the device answers.
pub(crate) async fn answers(target: &Target) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    while let Err(error) = load::run(target, 1, Duration::from_millis(1)).await {
        if Instant::now() > deadline {
            return Err(error.context("the agent does not answer"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Connects to an address, as soon as something listens there.
pub(crate) async fn connect_until(address: &str) -> Result<Channel> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match Endpoint::from_shared(address.to_owned())?.connect().await {
            Ok(channel) => return Ok(channel),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

impl Gateway {
    /// A connection of a client.
    pub(crate) async fn channel(&self, certificates: Option<&Certificates>) -> Result<Channel> {
        let endpoint = match certificates {
            None => Endpoint::from_shared(format!("http://{}", self.clients))?,
            Some(certificates) => {
                let endpoint = Endpoint::from_shared(format!("https://{}", self.clients))?;
                endpoint.tls_config(certificates.client()?)?
            }
        };
        Ok(endpoint.connect().await?)
    }

    /// The resident memory, in bytes.
    pub(crate) fn memory(&self) -> Result<usize> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: usize = line
            .context("no VmRSS")?
            .trim()
            .trim_end_matches(" kB")
            .parse()?;
        Ok(kib << 10)
    }

    /// The part of a core that is used during a time.
    pub(crate) async fn cpu_of(&self, time: Duration) -> Result<f64> {
        let before = self.ticks()?;
        tokio::time::sleep(time).await;
        // A tick is 10 ms on Linux.
        Ok((self.ticks()? - before) as f64 * 0.01 / time.as_secs_f64())
    }

    fn ticks(&self) -> Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let (_, fields) = stat.rsplit_once(')').context("no name")?;
        let field = |number: usize| {
            fields
                .split_whitespace()
                .nth(number)
                .and_then(|field| field.parse::<u64>().ok())
        };
        Ok(field(11).context("no user time")? + field(12).context("no system time")?)
    }
}
