//! A running child process.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use flume::{Receiver, RecvTimeoutError};

use crate::output::{Line, Show, Source, last_words, read_lines};

/// The interval between checks of whether a process has ended that has closed its output.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The time limit for the end of the output of a killed process, and for the end of a process that
/// has closed its output.
const REST_TIMEOUT: Duration = Duration::from_secs(1);

/// A signal to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT, as Ctrl-C sends it.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP, which asks many programs to read their files again.
    Hangup,
    /// SIGSTOP: freezes the process. Its connections stay open.
    Stop,
    /// SIGCONT: continues a frozen process.
    Continue,
}

/// The reason why there is no next line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoLine {
    /// None came in time.
    Timeout,
    /// The process has closed its output. Usually it has ended.
    Ended,
}

/// A running child process. It is killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    lines: Receiver<Line>,
    said: Vec<Line>,
    /// The number of lines that were handed out.
    read: usize,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.name)
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

impl Process {
    /// Starts a program and reads its standard output and standard error.
    ///
    /// The command decides about standard input. [`write_line`](Self::write_line) needs
    /// [`Stdio::piped`].
    ///
    /// # Errors
    ///
    /// If the program cannot be started.
    pub fn start(command: &mut Command, show: Show) -> Result<Self> {
        let path = Path::new(command.get_program());
        let name = path.file_stem().unwrap_or(path.as_os_str());
        let name = name.to_string_lossy().into_owned();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let (sender, lines) = flume::unbounded();
        if let Some(pipe) = child.stdout.take() {
            read_lines(Source::Stdout, pipe, show.clone(), sender.clone());
        }
        if let Some(pipe) = child.stderr.take() {
            read_lines(Source::Stderr, pipe, show, sender);
        }
        Ok(Self {
            name,
            child,
            lines,
            said: Vec::new(),
            read: 0,
        })
    }

    /// Replaces the name in error messages, which is that of the program's file.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to standard input.
    ///
    /// # Errors
    ///
    /// If standard input is not piped, is closed, or the process does not take it.
    pub fn write_line(&mut self, line: &str) -> io::Result<()> {
        let input = self.child.stdin.as_mut();
        let input = input.ok_or(io::ErrorKind::BrokenPipe)?;
        input.write_all(format!("{line}\n").as_bytes())
    }

    /// Closes standard input, which asks many programs to end.
    pub fn close_input(&mut self) {
        self.child.stdin = None;
    }

    /// The next line of output.
    ///
    /// # Errors
    ///
    /// If none comes before the deadline, or no more can come.
    pub fn next_line(&mut self, deadline: Instant) -> Result<&Line, NoLine> {
        if self.read == self.said.len() {
            self.receive(deadline)?;
        }
        self.read += 1;
        Ok(&self.said[self.read - 1])
    }

    /// The next line of output, or `None` after the last one. Cancel safe.
    pub async fn next_line_async(&mut self) -> Option<&Line> {
        if self.read == self.said.len() {
            self.said.push(self.lines.recv_async().await.ok()?);
        }
        self.read += 1;
        Some(&self.said[self.read - 1])
    }

    /// The next line on standard output. Cancel safe.
    ///
    /// # Errors
    ///
    /// If the output has ended. The message has the last lines.
    pub async fn next_stdout_line(&mut self) -> Result<String> {
        while let Some(line) = self.next_line_async().await {
            if line.source == Source::Stdout {
                return Ok(line.text.clone());
            }
        }
        let words = self.last_words();
        bail!("{} has ended; {words}", self.name);
    }

    /// What follows `prefix` in the next line on standard output, for example an address. Cancel safe.
    ///
    /// # Errors
    ///
    /// If the line begins otherwise, or the output has ended.
    pub async fn next_stdout_after(&mut self, prefix: &str) -> Result<String> {
        let line = self.next_stdout_line().await?;
        match line.strip_prefix(prefix) {
            Some(rest) => Ok(rest.to_owned()),
            None => bail!(
                "{} said {line:?}, which does not begin with {prefix:?}",
                self.name
            ),
        }
    }

    /// Waits for a line in which `find` finds something.
    ///
    /// # Errors
    ///
    /// If no such line comes in time, or the output ends. The message has the last lines.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        timeout: Duration,
        find: impl Fn(&Line) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + timeout;
        let how = loop {
            match self.next_line(deadline) {
                Ok(line) => {
                    if let Some(found) = find(line) {
                        return Ok(found);
                    }
                }
                Err(NoLine::Timeout) => break "did not say in time".to_owned(),
                Err(NoLine::Ended) => match self.wait(REST_TIMEOUT)? {
                    Some(status) => break format!("ended ({status}) before it said"),
                    None => break "closed its output before it said".to_owned(),
                },
            }
        };
        let words = self.last_words();
        bail!("{} {how} {what}; {words}", self.name);
    }

    /// The exit status, if the process has ended and its output has ended. Lines may still be
    /// unread.
    ///
    /// # Errors
    ///
    /// If the system does not report the status.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        match self.lines.is_disconnected() {
            true => Ok(self.child.try_wait()?),
            false => Ok(None),
        }
    }

    /// Waits until the process and its output have ended. `None` if it still runs after
    /// `timeout`.
    ///
    /// # Errors
    ///
    /// If the system does not report the status.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.receive(deadline) {
                Ok(()) => {}
                Err(NoLine::Timeout) => return Ok(None),
                Err(NoLine::Ended) => break,
            }
        }
        loop {
            let status = self.ended()?;
            if status.is_some() || Instant::now() >= deadline {
                return Ok(status);
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Waits until the process and its output have ended. Cancel safe.
    ///
    /// # Errors
    ///
    /// If the system does not report the status.
    pub async fn wait_async(&mut self) -> io::Result<ExitStatus> {
        while let Ok(line) = self.lines.recv_async().await {
            self.said.push(line);
        }
        // A process that has closed its output has nothing left to do.
        self.child.wait()
    }

    /// Sends a signal. It is no error if the process has ended.
    ///
    /// # Errors
    ///
    /// If the system has no signals.
    #[cfg(unix)]
    pub fn signal(&self, signal: Signal) -> Result<()> {
        use rustix::process::{Pid, Signal as System, kill_process};

        let signal = match signal {
            Signal::Interrupt => System::INT,
            Signal::Terminate => System::TERM,
            Signal::Hangup => System::HUP,
            Signal::Stop => System::STOP,
            Signal::Continue => System::CONT,
        };
        match kill_process(Pid::from_child(&self.child), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot signal {}", self.name)),
        }
    }

    /// Sends a signal, where the system has signals.
    ///
    /// # Errors
    ///
    /// Always.
    #[cfg(not(unix))]
    pub fn signal(&self, _: Signal) -> Result<()> {
        bail!("cannot signal {} on this system", self.name)
    }

    /// Sends a signal and waits for the end of the process. Kills it after `timeout`, or at once
    /// on systems without signals.
    ///
    /// # Errors
    ///
    /// If the process can be neither signalled nor killed.
    pub fn stop(&mut self, signal: Signal, timeout: Duration) -> Result<ExitStatus> {
        if cfg!(unix) {
            self.signal(signal)?;
            if let Some(status) = self.wait(timeout)? {
                return Ok(status);
            }
            eprintln!("{} does not end after {signal:?}, killing it", self.name);
        }
        Ok(self.kill()?)
    }

    /// Kills the process, frozen or not, and waits for its end.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        let status = self.child.wait()?;
        // Reads the rest of the output, unless a child of the process keeps it open.
        let _ = self.wait(REST_TIMEOUT);
        Ok(status)
    }

    /// All lines so far, whether [`next_line`](Self::next_line) has returned them or not.
    pub fn said(&mut self) -> &[Line] {
        self.said.extend(self.lines.try_iter());
        &self.said
    }

    /// A message that quotes the last lines, or the reason of a crash.
    pub fn last_words(&mut self) -> String {
        let words = last_words(self.said().iter().map(|line| line.text.as_str()));
        match words.is_empty() {
            true => format!("{} said nothing", self.name),
            false => format!("{} said last: {words}", self.name),
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<(), NoLine> {
        match self.lines.recv_deadline(deadline) {
            Ok(line) => self.said.push(line),
            Err(RecvTimeoutError::Timeout) => return Err(NoLine::Timeout),
            Err(RecvTimeoutError::Disconnected) => return Err(NoLine::Ended),
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // This fails if the process has ended already, which is fine.
        let _ = self.kill();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::exit_code;

    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::piped());
        Process::start(&mut command, Show::Nothing).expect("sh runs")
    }

    #[test]
    fn a_program_that_ends_by_itself_keeps_its_code_and_lines() {
        let mut process = shell("echo out; echo err >&2; printf unfinished; exit 3");
        let status = process.wait(LONG).expect("it ends").expect("in time");
        assert_eq!(exit_code(status), 3);
        let mut said: Vec<_> = process.said().iter().map(|line| &*line.text).collect();
        said.sort_unstable();
        assert_eq!(said, ["err", "out", "unfinished"]);
    }

    #[test]
    fn a_program_answers_lines_and_ends_with_its_input() {
        let mut process = shell("exec cat");
        process.write_line("hello").expect("it reads");
        let find = |line: &Line| (line.text == "hello").then_some(line.source);
        let source = process.wait_for("hello", LONG, find).expect("an echo");
        assert_eq!(source, Source::Stdout);
        assert_eq!(process.wait(Duration::ZERO).expect("it can be asked"), None);
        process.close_input();
        let status = process.wait(LONG).expect("it ends").expect("in time");
        assert!(status.success());
    }

    #[test]
    fn a_program_that_ends_too_early_is_an_error_with_its_last_words() {
        let find = |_: &Line| None::<()>;
        let mut process = shell("echo too bad; exit 4").named("the server");
        let error = process.wait_for("its port", LONG, find);
        let expected = "the server ended (exit status: 4) before it said its port; \
                        the server said last: too bad";
        assert_eq!(error.expect_err("no port").to_string(), expected);
        let error = shell("exec sleep 600").wait_for("its port", Duration::ZERO, find);
        let expected = "sh did not say in time its port; sh said nothing";
        assert_eq!(error.expect_err("no port").to_string(), expected);
    }

    #[test]
    fn a_running_program_is_terminated_and_one_that_ignores_that_is_killed() {
        // Not SIGINT: a shell starts its background programs with that signal ignored.
        let mut process = shell("exec sleep 600");
        let status = process.stop(Signal::Terminate, LONG).expect("it ends");
        assert_eq!(exit_code(status), 128 + 15);
        process
            .signal(Signal::Terminate)
            .expect("ended is no error");
        let mut process = shell("trap '' TERM; echo deaf; exec sleep 600");
        let deaf = |line: &Line| (line.text == "deaf").then_some(());
        process.wait_for("deaf", LONG, deaf).expect("it says so");
        let status = process.stop(Signal::Terminate, Duration::ZERO);
        assert_eq!(exit_code(status.expect("it ends")), 128 + 9);
    }
}
