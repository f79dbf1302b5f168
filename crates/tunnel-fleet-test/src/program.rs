//! A program that is stopped and started again, with its log.

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tunnel_process::{Process, Show, Signal};

/// The pause between looks at a condition without an event.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// How long a program may take to start, or to be ready again.
pub(crate) const READY: Duration = Duration::from_secs(60);

/// A program under a name. It can be stopped and started again, and is killed when this is dropped.
pub(crate) struct Program {
    name: String,
    log: PathBuf,
    running: Option<Process>,
}

impl Program {
    /// A program that does not run yet.
    pub(crate) fn new(name: &str, logs: &Path) -> Self {
        Self {
            name: name.to_owned(),
            log: logs.join(format!("{name}.log")),
            running: None,
        }
    }

    /// Starts it.
    pub(crate) fn start(&mut self, command: &mut Command) -> Result<()> {
        self.note();
        command.stdin(process::Stdio::null());
        let process = Process::start(command, Show::Nothing)?;
        self.running = Some(process.named(&self.name));
        Ok(())
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn process(&mut self) -> Result<&mut Process> {
        let name = &self.name;
        self.running
            .as_mut()
            .with_context(|| format!("{name} does not run"))
    }

    /// The process id, if it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.running.as_ref().map(Process::id)
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process()?.kill()?;
        self.ended()
    }

    /// Sends a signal.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process()?.signal(signal)
    }

    /// Sends SIGTERM, and waits until it has ended.
    pub(crate) async fn stop(&mut self, timeout: Duration) -> Result<()> {
        let process = self.process()?;
        process.signal(Signal::Terminate)?;
        let ended = tokio::time::timeout(timeout, process.wait_async()).await;
        let status = ended.with_context(|| format!("{} does not stop", self.name))??;
        self.ended()?;
        ensure!(
            status.success() || self.name.starts_with("etcd"),
            "{} ended with {status}",
            self.name
        );
        Ok(())
    }

    fn ended(&mut self) -> Result<()> {
        self.note();
        self.running = None;
        Ok(())
    }

    /// Fails if it has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(process) = &mut self.running
            && let Some(status) = process.ended()?
        {
            bail!(
                "{} has ended ({status}): {}",
                self.name,
                process.last_words()
            );
        }
        Ok(())
    }

    /// Writes what it has said into its log.
    pub(crate) fn note(&mut self) {
        let Some(process) = &mut self.running else {
            return;
        };
        let said: String = process
            .said()
            .iter()
            .map(|line| format!("{}\n", line.text))
            .collect();
        let id = process.id();
        // Each start has a file of its own. A log that cannot be written is no reason to fail.
        let _ = fs::write(self.log.with_extension(format!("{id}.log")), said);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.note();
    }
}

/// Adds a line to a file.
pub(crate) fn append(file: &Path, line: &str) {
    let file = File::options().create(true).append(true).open(file);
    // A log that cannot be written is no reason to fail.
    let _ = file.and_then(|mut file| writeln!(file, "{line}"));
}

/// A free address that stays free for programs that are started again: below the ports of outgoing connections.
pub(crate) fn free_address() -> Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(process::id() % 9_000)?;
    for _ in 0..9_000 {
        let port = 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 9_000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no port is free")
}

/// Waits until something holds that has no event.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !holds().await? {
        if start.elapsed() > READY {
            bail!("waited {READY:?} in vain until {what}");
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
