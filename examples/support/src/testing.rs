//! Starts the programs of the examples in tests, reads their lines, and ends them.
//!
//! Nothing here sleeps: every wait is for a line or for an end, for at most
//! [`PATIENCE`]. A failure panics and shows the program's whole output.

use std::fmt::Write;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::log::TIME_FORMAT;

/// The limit of every wait.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The output that a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Stdout,
    Stderr,
}

/// A running program. It is killed when dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    lines: Receiver<(Output, String)>,
    seen: Vec<(Output, String)>,
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
        command.env_remove("RUST_LOG");
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let (sender, lines) = channel();
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        watch(Output::Stdout, stdout, sender.clone());
        watch(Output::Stderr, stderr, sender);
        Self {
            child,
            lines,
            seen: Vec::new(),
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
        loop {
            let line = match self.next_line() {
                Ok(line) => line,
                Err(_) => panic!("no line has {text:?} in:\n{}", show(&self.seen)),
            };
            if let Some((_, rest)) = line.split_once(text) {
                return rest.to_owned();
            }
        }
    }

    /// Sends SIGINT.
    #[cfg(unix)]
    pub fn interrupt(&self) {
        let id = self.child.id().to_string();
        let script = r#"kill -INT "$1""#;
        let status = Command::new("sh").args(["-c", script, "sh", &id]).status();
        assert!(status.expect("sh runs").success(), "no signal was sent");
    }

    /// Waits until the program ends by itself.
    pub fn finish(mut self) -> Finished {
        loop {
            match self.next_line() {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("it does not end, after:\n{}", show(&self.seen))
                }
            }
        }
        // It has closed both outputs, so it is about to end.
        let status = self.child.wait().expect("it can be waited for");
        Finished {
            code: status.code(),
            lines: std::mem::take(&mut self.seen),
        }
    }

    fn next_line(&mut self) -> Result<String, RecvTimeoutError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let (output, line) = self.lines.recv_timeout(left)?;
        self.seen.push((output, line.clone()));
        Ok(line)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails if the program has ended, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The exit code and output of a program that ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code, unless a signal ended it.
    pub code: Option<i32>,
    lines: Vec<(Output, String)>,
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
        self.of(Output::Stdout)
    }

    /// The lines on standard error.
    pub fn stderr(&self) -> Vec<&str> {
        self.of(Output::Stderr)
    }

    fn of(&self, output: Output) -> Vec<&str> {
        let lines = self.lines.iter().filter(|(from, _)| *from == output);
        lines.map(|(_, line)| line.as_str()).collect()
    }
}

fn watch(output: Output, source: impl Read + Send + 'static, lines: Sender<(Output, String)>) {
    thread::spawn(move || {
        for line in BufReader::new(source).lines() {
            let Ok(line) = line else { return };
            if lines.send((output, line)).is_err() {
                return;
            }
        }
    });
}

fn show(lines: &[(Output, String)]) -> String {
    let mut shown = String::new();
    for (output, line) in lines {
        let _ = writeln!(shown, "{output:?}: {line}");
    }
    shown
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
