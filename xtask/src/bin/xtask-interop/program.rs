//! A process of a pair: its output, its end and its last lines.

use std::process::{Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::ctrl_c::CtrlC;
use crate::process::Process;

/// The number of lines quoted as last words.
const LAST_WORDS: usize = 3;

/// Prefixes of the line that gives the reason of a crash. The backtrace follows that line.
const CRASHES: [&str; 3] = ["panic: ", "fatal error: ", "thread '"];

/// A process of a pair. It is killed when dropped.
pub(crate) struct Program {
    role: &'static str,
    process: Process,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Program {
    /// Starts the process in a role: the caller or the handler.
    pub(crate) fn start(role: &'static str, command: &mut Command) -> Result<Self> {
        let (process, lines) = Process::spawn_heard(command)?;
        Ok(Self {
            role,
            process,
            lines,
            said: Vec::new(),
        })
    }

    /// The next line of output, or `None` after `timeout`.
    pub(crate) fn next_line(&mut self, timeout: Duration) -> Option<&str> {
        match self.lines.recv_timeout(timeout) {
            Ok(line) => {
                self.said.push(line);
                self.said.last().map(String::as_str)
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                // The output has ended, so the process ends soon. Sleep to avoid a busy loop.
                thread::sleep(timeout);
                None
            }
        }
    }

    /// The next unread line of output, without waiting.
    pub(crate) fn pending_line(&mut self) -> Option<&str> {
        self.said.push(self.lines.try_recv().ok()?);
        self.said.last().map(String::as_str)
    }

    /// The exit status, if the process has ended.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.process.ended()
    }

    /// Stops the process as Ctrl-C does.
    pub(crate) fn stop(&mut self, ctrl_c: &CtrlC) -> Result<ExitStatus> {
        self.process.stop(ctrl_c)
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
        self.said.extend(self.lines.try_iter());
        let lines = self.said.iter();
        lines
            .map(|line| format!("{} | {line}\n", self.role))
            .collect()
    }

    /// A message that quotes the last lines, or the reason of a crash.
    pub(crate) fn last_words(&mut self) -> String {
        self.said.extend(self.lines.try_iter());
        match last_words(&self.said) {
            words if words.is_empty() => format!("{} said nothing", self.role),
            words => format!("{} said last: {words}", self.role),
        }
    }
}

fn last_words(said: &[String]) -> String {
    let lines = || said.iter().map(|line| line.trim());
    let crash = lines().position(|line| CRASHES.iter().any(|sign| line.starts_with(sign)));
    let words: Vec<_> = match crash {
        Some(crash) => lines().skip(crash).take(LAST_WORDS).collect(),
        None => {
            let spoken: Vec<_> = lines().filter(|line| !line.is_empty()).collect();
            spoken[spoken.len().saturating_sub(LAST_WORDS)..].to_vec()
        }
    };
    words.join(" / ")
}

#[cfg(test)]
mod tests {
    use super::last_words;

    fn words(said: &[&str]) -> String {
        let said: Vec<_> = said.iter().map(ToString::to_string).collect();
        last_words(&said)
    }

    #[test]
    fn last_words_are_the_last_lines_that_say_anything() {
        assert_eq!(words(&[]), "");
        assert_eq!(words(&["a", "b", "", "  c", "d", ""]), "b / c / d");
    }

    #[test]
    fn last_words_of_a_crash_are_those_that_tell_why() {
        let said = [
            "a",
            "panic: too bad",
            "[signal]",
            "goroutine 1:",
            "main.go:1",
            "exit status 2",
        ];
        assert_eq!(words(&said), "panic: too bad / [signal] / goroutine 1:");
    }
}
