//! Processes with devices, as the harness sees them.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::timeout;
use tunnel_process::{Process, Show};

/// How long a command may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The name of device N.
pub(crate) fn key(number: usize) -> String {
    format!("device-{number}")
}

/// A process with devices. It ends when it is dropped.
pub(crate) struct DeviceHost(Process);

impl DeviceHost {
    pub(crate) fn start() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("devices").stdin(Stdio::piped());
        let process = Process::start(&mut command, Show::Nothing)?;
        Ok(Self(process.named("a process with devices")))
    }

    /// Gives a command, and returns the lines before its end.
    async fn tell(&mut self, command: &str) -> Result<Vec<String>> {
        let answer = async {
            self.0.write_line(command)?;
            let mut lines = Vec::new();
            loop {
                let line = self.0.next_stdout_line().await?;
                match line.strip_prefix("failed ") {
                    _ if line == "done" => return Ok(lines),
                    Some(error) => bail!("{error}"),
                    None => lines.push(line),
                }
            }
        };
        let answered = timeout(TIMEOUT, answer).await;
        let answered = answered.unwrap_or_else(|_| bail!("not done after {TIMEOUT:?}"));
        answered.with_context(|| format!("devices: {command}"))
    }

    /// Starts a device, and waits until it has a tunnel to each gateway.
    pub(crate) async fn connect(
        &mut self,
        key: &str,
        session: u64,
        gateways: &[SocketAddr],
    ) -> Result<()> {
        let gateways = addresses(gateways);
        self.tell(&format!("start {key} {session} {gateways}"))
            .await?;
        Ok(())
    }

    /// Starts a device.
    pub(crate) async fn begin(
        &mut self,
        key: &str,
        session: u64,
        gateways: &[SocketAddr],
    ) -> Result<()> {
        let gateways = addresses(gateways);
        self.tell(&format!("begin {key} {session} {gateways}"))
            .await?;
        Ok(())
    }

    /// Opens a tunnel that is not opened again after its end.
    pub(crate) async fn once(
        &mut self,
        key: &str,
        session: u64,
        gateway: SocketAddr,
    ) -> Result<()> {
        self.tell(&format!("once {key} {session} {gateway}"))
            .await?;
        Ok(())
    }

    /// Starts devices with tunnels that go to any of the gateways which accept connections.
    pub(crate) async fn crowd(
        &mut self,
        first: usize,
        count: usize,
        tunnels: usize,
        gateways: &[SocketAddr],
    ) -> Result<()> {
        let gateways = addresses(gateways);
        self.tell(&format!("crowd {first} {count} {tunnels} {gateways}"))
            .await?;
        Ok(())
    }

    /// The open tunnels of the crowd, and its attempts so far.
    pub(crate) async fn crowded(&mut self) -> Result<(usize, usize)> {
        let lines = self.tell("count").await?;
        let words: Vec<_> = lines.iter().flat_map(|line| line.split(' ')).collect();
        match words[..] {
            ["count", open, attempts] => Ok((open.parse()?, attempts.parse()?)),
            _ => bail!("no count: {lines:?}"),
        }
    }

    /// Drains the tunnels of a device, and ends it.
    pub(crate) async fn stop(&mut self, key: &str, session: u64) -> Result<()> {
        self.tell(&format!("stop {key} {session}")).await?;
        Ok(())
    }

    /// Waits until all devices have all their tunnels.
    pub(crate) async fn settle(&mut self) -> Result<()> {
        self.tell("settle").await?;
        Ok(())
    }

    /// The calls that were served since the last time.
    pub(crate) async fn served(&mut self) -> Result<Vec<u64>> {
        let mut ids = Vec::new();
        for line in self.tell("report").await? {
            let line = line.strip_prefix("served ").context("no report")?;
            for id in line.split(' ') {
                ids.push(id.parse()?);
            }
        }
        Ok(ids)
    }

    /// What it has said, for the logs.
    pub(crate) fn words(&mut self) -> String {
        self.0.last_words()
    }
}

fn addresses(gateways: &[SocketAddr]) -> String {
    let words: Vec<_> = gateways.iter().map(ToString::to_string).collect();
    words.join(" ")
}
