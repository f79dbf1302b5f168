//! Running bridges: the processes of the foreign peers.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tunnel_process::{Process, Show};

use crate::matrix::{Peer, Revision};
use crate::programs::Programs;

/// The time limit for a program to print its ports.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running program that has printed its ports. It is killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    process: Mutex<Process>,
    /// The ports in the order in which the program prints them.
    ports: Vec<u16>,
    log: PathBuf,
}

impl Running {
    /// Starts a program, and waits for its first line. Its output goes to the log when it ends.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let mut process = Process::start(command.stdin(Stdio::piped()), Show::Nothing)?;
        let ports = process.wait_for("its ports", START_TIMEOUT, |line| {
            let mut words = line.text.split_whitespace();
            match words.next() {
                Some("LISTENING" | "READY") => words.map(|port| port.parse().ok()).collect(),
                _ => None,
            }
        })?;
        Ok(Self {
            process: Mutex::new(process),
            ports,
            log: log.to_owned(),
        })
    }

    /// Writes a line to the standard input of the program.
    pub(crate) fn tell(&self, line: &str) -> Result<()> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.write_line(line).context("the program has ended")
    }

    /// The address of one of its ports.
    pub(crate) fn address(&self, port: usize) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[port]).into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let process = self.process.get_mut();
        let process = process.unwrap_or_else(PoisonError::into_inner);
        // Nothing is left to do here about a failure of either.
        let _ = process.kill();
        if let Ok(mut log) = File::options().create(true).append(true).open(&self.log) {
            for line in process.said() {
                let _ = writeln!(log, "{}", line.text);
            }
        }
    }
}

/// A peer, a command and the highest revision.
type Key = (Peer, &'static str, Revision);

/// The bridges of one worker. They are started when they are first needed, because a Python program
/// takes longer to start than most cases take.
#[derive(Debug)]
pub(crate) struct Bridges {
    programs: Arc<Programs>,
    log: PathBuf,
    running: Mutex<HashMap<Key, Arc<Running>>>,
}

impl Bridges {
    pub(crate) fn new(programs: Arc<Programs>, log: PathBuf) -> Self {
        Self {
            programs,
            log,
            running: Mutex::default(),
        }
    }

    /// The running bridge of a peer for a command such as `serve-forward`.
    pub(crate) fn get(
        &self,
        peer: Peer,
        command: &'static str,
        revision: Revision,
    ) -> Result<Arc<Running>> {
        let mut all = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = all.get(&(peer, command, revision)) {
            return Ok(Arc::clone(running));
        }
        let mut start = self.programs.bridge(peer);
        start.args([command, "--revision", revision.id()]);
        let running = Arc::new(Running::start(&mut start, &self.log)?);
        all.insert((peer, command, revision), Arc::clone(&running));
        Ok(running)
    }

    /// The program `tunnel`.
    pub(crate) fn tunnel(&self) -> PathBuf {
        self.programs.tunnel()
    }

    /// Forgets all bridges, so that a case that damaged one does not harm the next case.
    pub(crate) fn restart(&self) {
        let mut all = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        all.clear();
    }
}
