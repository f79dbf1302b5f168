//! Starts the programs of the examples in tests, reads their lines, and ends them.
//!
//! Nothing here sleeps: every wait is for a line or for an end, for at most
//! [`PATIENCE`]. A failure panics and shows the program's whole output.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tunnel_process::{Line, Process, Show, Signal, Source};

use crate::log::TIME_FORMAT;

/// The limit of every wait.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running program. It is killed when dropped.
#[derive(Debug)]
pub struct Program {
    process: Process,
    deadline: Instant,
}

impl Program {
    /// Starts a program with the default log filter.
    pub fn start(path: &str, args: &[&str]) -> Self {
        let mut command = Command::new(path);
        command.args(args);
        Self::spawn(command)
    }

    /// Starts a command as [`start`](Self::start) does, for example with its own
    /// environment.
    pub fn spawn(mut command: Command) -> Self {
        command.env_remove("RUST_LOG").stdin(Stdio::null());
        Self {
            process: Process::start(&mut command, Show::Nothing).expect("the program starts"),
            deadline: Instant::now() + PATIENCE,
        }
    }

    /// Runs a program to its end.
    pub fn run(path: &str, args: &[&str]) -> Finished {
        Self::start(path, args).finish()
    }

    /// Waits for a line that contains a text, and returns the rest of the line. Lines
    /// before the last call's line do not count.
    pub fn wait_for(&mut self, text: &str) -> String {
        let left = self.left();
        let rest = |line: &Line| Some(line.text.split_once(text)?.1.to_owned());
        match self.process.wait_for(text, left, rest) {
            Ok(rest) => rest,
            Err(error) => panic!("{error} in:\n{}", show(self.process.said())),
        }
    }

    /// Sends SIGINT.
    #[cfg(unix)]
    pub fn interrupt(&self) {
        let sent = self.process.signal(Signal::Interrupt);
        sent.expect("a signal is sent");
    }

    /// Waits until the program ends by itself.
    pub fn finish(mut self) -> Finished {
        let status = self.process.wait(self.left());
        let lines = self.process.said().to_vec();
        let Some(status) = status.expect("it can be waited for") else {
            panic!("it does not end, after:\n{}", show(&lines));
        };
        Finished {
            code: status.code(),
            lines,
        }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// The exit code and output of a program that ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code, unless a signal ended it.
    pub code: Option<i32>,
    lines: Vec<Line>,
}

impl Finished {
    /// Panics unless the program ended with this code.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "after:\n{}", show(&self.lines));
        self
    }

    /// The lines on standard output.
    pub fn stdout(&self) -> Vec<&str> {
        self.of(Source::Stdout)
    }

    /// The lines on standard error.
    pub fn stderr(&self) -> Vec<&str> {
        self.of(Source::Stderr)
    }

    fn of(&self, source: Source) -> Vec<&str> {
        let lines = self.lines.iter().filter(|line| line.source == source);
        lines.map(|line| line.text.as_str()).collect()
    }
}

fn show(lines: &[Line]) -> String {
    let line = |line: &Line| format!("{:?}: {}\n", line.source, line.text);
    lines.iter().map(line).collect()
}

/// The level and the message of a log line. Panics where it has another format.
#[track_caller]
pub fn log_line(line: &str) -> (&str, &str) {
    let mut parts = line.splitn(3, " - ");
    let (Some(time), Some(level), Some(message)) = (parts.next(), parts.next(), parts.next())
    else {
        panic!("not a log line: {line:?}");
    };
    let parsed = chrono::NaiveDateTime::parse_from_str(time, TIME_FORMAT);
    assert!(parsed.is_ok() && time.len() == 19, "no time in {line:?}");
    (level, message)
}

/// The messages of log lines that are all of one level.
#[track_caller]
pub fn messages<'a>(level: &str, lines: &[&'a str]) -> Vec<&'a str> {
    let message = |line: &&'a str| {
        let (found, message) = log_line(line);
        assert_eq!(found, level, "{line:?}");
        message
    };
    lines.iter().map(message).collect()
}

/// The messages of a program that succeeded.
#[track_caller]
pub fn messages_of_success(program: &Finished) -> Vec<&str> {
    assert_eq!(program.stderr(), [""; 0]);
    messages("INFO", &program.stdout())
}

/// The only error line of a program that failed. No line before it reports success.
#[track_caller]
pub fn message_of_failure(program: Program) -> String {
    let finished = program.finish().expect_code(1);
    let stdout = finished.stdout();
    assert!(stdout.iter().all(|line| !line.contains('✓')), "{stdout:#?}");
    let errors = messages("ERROR", &finished.stderr());
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors[0].to_owned()
}

/// Panics unless all of these lines are there in this order, with or without others
/// between them.
#[track_caller]
pub fn expect_in_order(lines: &[&str], expected: &[&str]) {
    let mut rest = lines.iter();
    for line in expected {
        let found = rest.any(|candidate| candidate == line);
        assert!(found, "no {line:?}, or out of order, in {lines:#?}");
    }
}
