//! A process of a pair: its output, its end and its last lines.

use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use tunnel_process::{NoLine, Process, Show, Signal};

/// The time limit for a program to end after SIGINT, before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// A process of a pair. It is killed when dropped.
pub(crate) struct Program {
    role: &'static str,
    process: Process,
}

impl Program {
    /// Starts the process in a role: the caller or the handler.
    pub(crate) fn start(role: &'static str, command: &mut Command) -> Result<Self> {
        // A peer is wanted for as long as its standard input is open.
        let process = Process::start(command.stdin(Stdio::piped()), Show::Nothing)?.named(role);
        Ok(Self { role, process })
    }

    /// The next line of output, or `None` after `timeout`.
    pub(crate) fn next_line(&mut self, timeout: Duration) -> Option<&str> {
        match self.process.next_line(Instant::now() + timeout) {
            Ok(line) => Some(&line.text),
            Err(NoLine::Timeout) => None,
            Err(NoLine::Ended) => {
                // The process ends soon. Sleep to avoid a busy loop.
                thread::sleep(timeout);
                None
            }
        }
    }

    /// The exit status, if the process has ended and all its lines are read.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.process.ended()
    }

    /// Stops the process as Ctrl-C does.
    pub(crate) fn stop(&mut self) -> Result<ExitStatus> {
        self.process.stop(Signal::Interrupt, STOP_TIMEOUT)
    }

    /// A message that says how the process ended.
    pub(crate) fn describe_end(&self, status: ExitStatus) -> String {
        format!("{} ended ({status})", self.role)
    }

    /// A message that says that the process printed no port.
    pub(crate) fn describe_silence(&self) -> String {
        format!("{} does not say where it listens", self.role)
    }

    /// All output, with the role before each line.
    pub(crate) fn log(&mut self) -> String {
        let lines = self.process.said().iter();
        lines
            .map(|line| format!("{} | {}\n", self.role, line.text))
            .collect()
    }

    /// A message that quotes the last lines, or the reason of a crash.
    pub(crate) fn last_words(&mut self) -> String {
        self.process.last_words()
    }
}
