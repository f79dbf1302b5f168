//! Running bridges: the processes of the foreign peers.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};

use crate::matrix::{Peer, Revision};
use crate::programs::Programs;

/// A running program that has printed its ports. It is killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    input: Mutex<ChildStdin>,
    /// The ports in the order in which the program prints them.
    pub(crate) ports: Vec<u16>,
}

impl Running {
    /// Starts a program, and waits for its first line. Standard error goes to the log.
    pub(crate) fn start(command: &mut Command, log: &PathBuf) -> Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let input = child.stdin.take().context("the input is piped")?;
        let output = child.stdout.take().context("the output is piped")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let mut running = Self {
            child,
            input: Mutex::new(input),
            ports: Vec::new(),
        };
        match line.split_whitespace().next() {
            Some("LISTENING" | "READY") => {
                let words = line.split_whitespace().skip(1);
                running.ports = words.map(str::parse).collect::<Result<_, _>>()?;
                Ok(running)
            }
            _ => bail!("{command:?} says {line:?} in place of its ports"),
        }
    }

    /// Writes a line to the standard input of the program.
    pub(crate) fn tell(&self, line: &str) -> Result<()> {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(input, "{line}").context("the program has ended")
    }

    /// The address of one of its ports.
    pub(crate) fn address(&self, port: usize) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[port]).into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It fails only for a program that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The bridges of one worker. They are started when they are first needed, because a Python program
/// takes longer to start than most cases take.
#[derive(Debug)]
pub(crate) struct Bridges {
    programs: Arc<Programs>,
    log: PathBuf,
    running: Mutex<HashMap<(Peer, &'static str, Revision), Arc<Running>>>,
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

    /// Forgets all bridges, so that a case that damaged one does not harm the next case.
    pub(crate) fn restart(&self) {
        let mut all = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        all.clear();
    }
}
