//! A pair: a client process and a server process.
//!
//! Invariant: the processes of a [`Pair`] never outlive it. Dropping the pair kills them and waits
//! for their end, so that they disturb no measurement. They end by themselves when this process
//! ends, because that closes their standard input.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tunnel_process::{Process, Show};

use super::process;
use crate::job::{Greeting, Job, Measured, Reply};
use crate::link::Delay;
use crate::variant::{Language, Spreads, Variant};

/// The time limit for a pair to become ready for calls.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// The paths of the programs.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) rust: PathBuf,
    pub(super) go: Option<PathBuf>,
}

impl Programs {
    fn of(&self, language: Language) -> Result<&Path> {
        match language {
            Language::Rust => Ok(&self.rust),
            Language::Go => self.go.as_deref().context("--go names no Go program"),
        }
    }
}

/// The settings of a workload's pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Setup {
    /// The number of tunnels, for variants that can have several.
    pub(super) tunnels: usize,
    /// The stream limit of a tunnel.
    pub(super) max_streams: Option<usize>,
    /// The delay of the link in each direction.
    pub(super) each_way: Option<Duration>,
    /// Whether each measurement starts new processes.
    pub(super) fresh: bool,
    /// The share of a core that other tasks use in each process, in percent.
    pub(super) busy_percent: u32,
    /// How long handlers of unary calls compute.
    pub(super) computes: Duration,
    /// How long handlers of unary calls wait after computing.
    pub(super) waits: Duration,
}

/// The reason why a job has no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// The client did not reply within the time limit.
    Hangs,
    /// The client reported an error, or a process ended.
    Failed(anyhow::Error),
    /// The pair did not become ready.
    NotStarted(anyhow::Error),
}

/// The next line of a process.
async fn line<T: DeserializeOwned>(process: &mut Process) -> Result<T> {
    let line = process.next_stdout_line().await?;
    serde_json::from_str(&line).with_context(|| format!("cannot parse the line: {line}"))
}

async fn port(process: &mut Process) -> Result<u16> {
    match line(process).await? {
        Greeting::Port(port) => Ok(port),
        Greeting::Ready(_) => bail!("the process did not print its port"),
    }
}

async fn ready(process: &mut Process) -> Result<()> {
    match line(process).await? {
        Greeting::Ready(true) => Ok(()),
        other => bail!("the process is not ready: {other:?}"),
    }
}

/// The parameters for starting a pair.
#[derive(Clone, Copy)]
struct Starting<'a> {
    programs: &'a Programs,
    variant: &'a Variant,
    setup: &'a Setup,
}

impl Starting<'_> {
    fn process(&self, role: &str, port: Option<(&str, u16)>) -> Result<Process> {
        let language = match role {
            "server" => self.variant.server,
            _ => self.variant.client,
        };
        let program = self.programs.of(language)?;
        let way = self.variant.way;
        let way = match language {
            Language::Rust => Some(way.name()),
            Language::Go => way.name_in_go(),
        };
        let way = way.context("the Go program does not have this variant")?;
        let mut command = Command::new(program);
        command.args([role, "--variant", way]).stdin(Stdio::piped());
        if language == Language::Rust {
            command.args(self.options());
        }
        if let Some((option, port)) = port {
            command.args([option, &port.to_string()]);
        }
        Ok(Process::start(&mut command, Show::Errors)?.named(role))
    }

    /// The options for Rust processes only. The Go library has no stream limit, and the Go program
    /// takes no part in workloads with many tunnels or other work.
    fn options(&self) -> Vec<String> {
        let mut options = Vec::new();
        if self.variant.spreads != Spreads::No && self.setup.tunnels > 1 {
            options.extend(["--tunnels".to_owned(), self.setup.tunnels.to_string()]);
        }
        if let Some(max) = self.setup.max_streams {
            options.extend(["--max-streams".to_owned(), max.to_string()]);
        }
        let work = [
            ("--busy-percent", u128::from(self.setup.busy_percent)),
            ("--compute-micros", self.setup.computes.as_micros()),
            ("--wait-millis", self.setup.waits.as_millis()),
        ];
        for (option, value) in work.into_iter().filter(|(_, value)| *value > 0) {
            options.extend([option.to_owned(), value.to_string()]);
        }
        options
    }

    async fn link(&self, port: u16) -> Result<Option<Delay>> {
        match self.setup.each_way {
            None => Ok(None),
            Some(each_way) => Ok(Some(Delay::start(port, each_way).await?)),
        }
    }

    async fn pair(&self) -> Result<Pair> {
        let reverse = self.variant.way.is_reverse();
        let (listens, dials, option) = match reverse {
            false => ("server", "client", "--connect"),
            true => ("client", "server", "--dial"),
        };
        let mut listening = self.process(listens, None)?;
        let port = port(&mut listening).await.context(listens)?;
        let link = self.link(port).await?;
        let port = link.as_ref().map_or(port, Delay::port);
        let dialling = self.process(dials, Some((option, port)))?;
        let (mut client, server) = match reverse {
            false => (dialling, listening),
            true => (listening, dialling),
        };
        ready(&mut client).await.context("client")?;
        Ok(Pair {
            client,
            server,
            _link: link,
        })
    }
}

/// The two processes of a variant, and the link between them.
pub(super) struct Pair {
    client: Process,
    server: Process,
    _link: Option<Delay>,
}

impl Pair {
    /// Starts both processes and waits until the client can make calls.
    pub(super) async fn start(
        programs: &Programs,
        variant: &Variant,
        setup: &Setup,
    ) -> Result<Self> {
        let starting = Starting {
            programs,
            variant,
            setup,
        };
        let started = timeout(READY_WITHIN, starting.pair()).await;
        started.context("the pair did not become ready in time")?
    }

    /// Sends a job to the client and waits for the reply. After a failure the pair must not be used
    /// any more.
    pub(super) async fn job(&mut self, job: &Job, limit: Duration) -> Result<Measured, Failure> {
        let answer = async {
            self.client.write_line(&serde_json::to_string(job)?)?;
            line(&mut self.client).await
        };
        match timeout(limit, answer).await {
            Err(_) => Err(Failure::Hangs),
            Ok(Err(error)) => Err(Failure::Failed(error)),
            Ok(Ok(Reply::Error(error))) => Err(Failure::Failed(anyhow::Error::msg(error))),
            Ok(Ok(Reply::Ok(measured))) => Ok(measured),
        }
    }

    /// The CPU time used by both processes.
    pub(super) fn cpu(&self) -> Option<Duration> {
        Some(process::cpu(self.client.id())? + process::cpu(self.server.id())?)
    }

    /// The resident memory of both processes, in bytes.
    pub(super) fn resident(&self) -> Option<u64> {
        Some(process::resident(self.client.id())? + process::resident(self.server.id())?)
    }
}
