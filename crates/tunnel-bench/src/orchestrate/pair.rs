//! A client and a server process, as one.
//!
//! Invariant: when a [`Pair`] is gone so are its processes. They are killed when it is dropped,
//! and end by themselves when this process does, since their standard input ends with it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::process;
use crate::job::{Greeting, Job, Measured, Reply};
use crate::link::Delay;
use crate::variant::{Language, Spreads, Variant};

/// How long a pair may take until its client can make calls.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// The files of the programs.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) rust: PathBuf,
    pub(super) go: Option<PathBuf>,
}

impl Programs {
    fn of(&self, language: Language) -> Result<&Path> {
        match language {
            Language::Rust => Ok(&self.rust),
            Language::Go => self.go.as_deref().context("no program in Go was named"),
        }
    }
}

/// What a workload needs of its pairs beyond the defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Setup {
    /// How many tunnels, where a variant can have several.
    pub(super) tunnels: usize,
    /// How many streams a tunnel may have.
    pub(super) max_streams: Option<usize>,
    /// How long the link between the two takes each way.
    pub(super) each_way: Option<Duration>,
    /// Whether each measurement has processes of its own.
    pub(super) fresh: bool,
    /// What share of a core other tasks use at each end, in percent.
    pub(super) busy_percent: u32,
    /// For how long handlers of unary calls compute.
    pub(super) computes: Duration,
    /// How long they then wait.
    pub(super) waits: Duration,
}

/// Why there is nothing to tell of a job.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing was heard for the time it may take.
    Hangs,
    /// The client said why, or one of the processes ended.
    Failed(anyhow::Error),
    /// The pair never got ready.
    NotStarted(anyhow::Error),
}

/// One process.
struct Process {
    child: Child,
    pid: u32,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(
        program: &Path,
        role: &[&str],
        options: Vec<String>,
        port: Option<(&str, u16)>,
    ) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(role).args(options);
        if let Some((option, port)) = port {
            command.args([option, &port.to_string()]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let lines = child.stdout.take().context("a process has no output")?;
        Ok(Self {
            pid: child.id().context("a process ended at once")?,
            input: child.stdin.take().context("a process has no input")?,
            lines: BufReader::new(lines).lines(),
            child,
        })
    }

    async fn line<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = self.lines.next_line().await?;
        let line = line.context("the process has ended")?;
        serde_json::from_str(&line).with_context(|| format!("not understood: {line}"))
    }

    async fn port(&mut self) -> Result<u16> {
        match self.line().await? {
            Greeting::Port(port) => Ok(port),
            Greeting::Ready(_) => bail!("it told no port"),
        }
    }

    async fn ready(&mut self) -> Result<()> {
        match self.line().await? {
            Greeting::Ready(true) => Ok(()),
            other => bail!("it is not ready: {other:?}"),
        }
    }
}

/// What a pair is started from.
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
        let options = match language {
            Language::Rust => self.options(),
            Language::Go => Vec::new(),
        };
        let way = self.variant.way;
        let way = match language {
            Language::Rust => Some(way.name()),
            Language::Go => way.name_in_go(),
        };
        let way = way.context("the program in Go does not have this variant")?;
        Process::start(program, &[role, "--variant", way], options, port)
    }

    /// What the program in Go has no options for: its library has no such limit, and it takes no part
    /// where there are many tunnels or other work.
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
        let port = listening.port().await.context(listens)?;
        let link = self.link(port).await?;
        let port = link.as_ref().map_or(port, Delay::port);
        let dialling = self.process(dials, Some((option, port)))?;
        let (mut client, server) = match reverse {
            false => (dialling, listening),
            true => (listening, dialling),
        };
        client.ready().await.context("client")?;
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
    /// Starts both, and waits until calls can be made.
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
        started.context("it has not become ready in time")?
    }

    /// Has the client do a job. After a failure the pair is of no more use.
    pub(super) async fn job(&mut self, job: &Job, limit: Duration) -> Result<Measured, Failure> {
        let answer = async {
            let mut line = serde_json::to_string(job)?;
            line.push('\n');
            self.client.input.write_all(line.as_bytes()).await?;
            self.client.line().await
        };
        match timeout(limit, answer).await {
            Err(_) => Err(Failure::Hangs),
            Ok(Err(error)) => Err(Failure::Failed(error)),
            Ok(Ok(Reply::Error(error))) => Err(Failure::Failed(anyhow::Error::msg(error))),
            Ok(Ok(Reply::Ok(measured))) => Ok(measured),
        }
    }

    /// CPU time that both have used up.
    pub(super) fn cpu(&self) -> Option<Duration> {
        Some(process::cpu(self.client.pid)? + process::cpu(self.server.pid)?)
    }

    /// Resident memory of both, in bytes.
    pub(super) fn resident(&self) -> Option<u64> {
        Some(process::resident(self.client.pid)? + process::resident(self.server.pid)?)
    }

    /// Kills both, and waits until they are gone and disturb nothing any more.
    pub(super) async fn end(mut self) {
        let _ = self.client.child.start_kill();
        let _ = self.server.child.start_kill();
        let _ = self.client.child.wait().await;
        let _ = self.server.child.wait().await;
    }
}
