//! A process of a pair: what it says, how it ends, and its last words.

use std::process::{Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::ctrl_c::CtrlC;
use crate::process::Process;

/// How many lines are taken for last words.
const LAST_WORDS: usize = 3;

/// What the line begins with that tells why a program crashes, above the lines
/// that tell where.
const CRASHES: [&str; 3] = ["panic: ", "fatal error: ", "thread '"];

/// A process of a pair. It is killed when dropped.
pub(crate) struct Program {
    role: &'static str,
    process: Process,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Program {
    /// Starts it in a role: the caller or the handler.
    pub(crate) fn start(role: &'static str, command: &mut Command) -> Result<Self> {
        let (process, lines) = Process::spawn_heard(command)?;
        Ok(Self {
            role,
            process,
            lines,
            said: Vec::new(),
        })
    }

    /// Its next line, if it says one in time.
    pub(crate) fn next_line(&mut self, timeout: Duration) -> Option<&str> {
        match self.lines.recv_timeout(timeout) {
            Ok(line) => {
                self.said.push(line);
                self.said.last().map(String::as_str)
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                // It will end presently. Until then this is no busy loop.
                thread::sleep(timeout);
                None
            }
        }
    }

    /// A line that it has said and that nobody has heard yet.
    pub(crate) fn pending_line(&mut self) -> Option<&str> {
        self.said.push(self.lines.try_recv().ok()?);
        self.said.last().map(String::as_str)
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.process.ended()
    }

    /// Ends it as Ctrl-C does.
    pub(crate) fn stop(&mut self, ctrl_c: &CtrlC) -> Result<ExitStatus> {
        self.process.stop(ctrl_c)
    }

    /// That it has ended, in words.
    pub(crate) fn describe_end(&self, status: ExitStatus) -> String {
        format!("{} ended ({status})", self.role)
    }

    /// That it has not said where it listens, in words.
    pub(crate) fn describe_silence(&self) -> String {
        format!("{} does not say where it listens", self.role)
    }

    /// What it has said, with its role before each line.
    pub(crate) fn log(&mut self) -> String {
        self.said.extend(self.lines.try_iter());
        let lines = self.said.iter();
        lines
            .map(|line| format!("{} | {line}\n", self.role))
            .collect()
    }

    /// What it said last, in words, or why it crashed.
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
