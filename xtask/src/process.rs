//! Child processes that are always ended.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::ctrl_c::CtrlC;
use crate::output::{Label, copy_lines, take_lines};

/// The interval between checks of whether a program has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The time limit for a program to end after SIGINT, before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// The delay between a Ctrl-C and the SIGINT to a program: at a terminal the program has received
/// the Ctrl-C itself.
const CTRL_C_GRACE: Duration = Duration::from_secs(2);

/// A running child process. It is killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts a program that inherits this program's output.
    ///
    /// # Errors
    ///
    /// If the program cannot be started.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let path = Path::new(command.get_program());
        let name = path.file_stem().unwrap_or(path.as_os_str());
        let name = name.to_string_lossy().into_owned();
        let child = command.spawn();
        let child = child.with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name,
            child,
            output: Vec::new(),
        })
    }

    /// Starts a program whose output is printed line by line, with a label. The receiver gets a
    /// copy of the lines.
    ///
    /// # Errors
    ///
    /// If the program cannot be started.
    pub fn spawn_labelled(label: Label, command: &mut Command) -> Result<(Self, Receiver<String>)> {
        let (heard, lines) = mpsc::channel();
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Self::spawn(command)?;
        let stdout = process.child.stdout.take();
        let stderr = process.child.stderr.take();
        let from_stdout = stdout.map(|pipe| copy_lines(label, pipe, heard.clone()));
        let from_stderr = stderr.map(|pipe| copy_lines(label, pipe, heard));
        process.output.extend(from_stdout);
        process.output.extend(from_stderr);
        Ok((process, lines))
    }

    /// Starts a program whose standard output and standard error go to the receiver and are not
    /// printed. Its standard input stays open and empty until this value is dropped.
    ///
    /// # Errors
    ///
    /// If the program cannot be started.
    pub fn spawn_heard(command: &mut Command) -> Result<(Self, Receiver<String>)> {
        let (heard, lines) = mpsc::channel();
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Self::spawn(command)?;
        let stdout = process.child.stdout.take();
        let stderr = process.child.stderr.take();
        let from_stdout = stdout.map(|pipe| take_lines(pipe, heard.clone()));
        let from_stderr = stderr.map(|pipe| take_lines(pipe, heard));
        process.output.extend(from_stdout);
        process.output.extend(from_stderr);
        Ok((process, lines))
    }

    /// The exit status, or `None` while the program runs. When the program has ended, this waits
    /// until its output is read to the end.
    ///
    /// # Errors
    ///
    /// If the system does not report the status.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        if status.is_some() {
            self.finish_output();
        }
        Ok(status)
    }

    /// Waits until the program ends by itself. After a Ctrl-C it is stopped.
    ///
    /// # Errors
    ///
    /// If the system does not report the status.
    pub fn wait(&mut self, ctrl_c: &CtrlC) -> Result<ExitStatus> {
        match self.wait_unless(|| ctrl_c.pressed())? {
            Some(status) => Ok(status),
            None => self.stop(ctrl_c),
        }
    }

    /// Sends SIGINT to the program, and kills it if it does not end. After a Ctrl-C, which a
    /// terminal also sends to the program, it first has time to end by itself.
    ///
    /// # Errors
    ///
    /// If the program can be neither signalled nor killed.
    pub fn stop(&mut self, ctrl_c: &CtrlC) -> Result<ExitStatus> {
        let grace = if ctrl_c.pressed() {
            CTRL_C_GRACE
        } else {
            Duration::ZERO
        };
        if let Some(status) = self.wait_for(grace)? {
            return Ok(status);
        }
        if cfg!(unix) {
            self.interrupt()?;
            if let Some(status) = self.wait_for(STOP_TIMEOUT)? {
                return Ok(status);
            }
            eprintln!("{} does not end after SIGINT, killing it", self.name);
        }
        self.child.kill()?;
        let status = self.child.wait()?;
        self.finish_output();
        Ok(status)
    }

    fn wait_for(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        let start = Instant::now();
        self.wait_unless(|| start.elapsed() >= timeout)
    }

    fn wait_unless(&mut self, give_up: impl Fn() -> bool) -> Result<Option<ExitStatus>> {
        loop {
            let status = self.ended()?;
            if status.is_some() || give_up() {
                return Ok(status);
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Sends SIGINT, so that the program can shut down gracefully.
    fn interrupt(&self) -> Result<()> {
        // `kill` is built into every shell, but some systems have no program of that name.
        let id = self.child.id().to_string();
        let status = Command::new("sh")
            .args(["-c", r#"kill -INT "$1""#, "sh", &id])
            .status()
            .context("cannot run sh to send a signal")?;
        if !status.success() {
            bail!("cannot send a signal to {}", self.name);
        }
        Ok(())
    }

    fn finish_output(&mut self) {
        for copying in self.output.drain(..) {
            // A panic of that thread has already been printed.
            let _ = copying.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // This fails if the program has ended already, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.finish_output();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::process::Command;

    use super::Process;
    use crate::ctrl_c::{CtrlC, exit_code};

    fn shell(script: &str) -> Process {
        Process::spawn(Command::new("sh").args(["-c", script])).expect("sh runs")
    }

    #[test]
    fn a_program_that_ends_by_itself_keeps_its_code() {
        let ctrl_c = CtrlC::watch().expect("SIGINT can be watched");
        let status = shell("exit 3").wait(&ctrl_c).expect("it ends");
        assert_eq!(exit_code(status), 3);
    }

    #[test]
    fn what_a_program_says_is_heard_however_it_says_it() {
        let mut script = Command::new("sh");
        script.args(["-c", "echo out; echo err >&2; printf unfinished"]);
        let (process, lines) = Process::spawn_heard(&mut script).expect("sh runs");
        let mut heard: Vec<_> = lines.iter().collect();
        heard.sort();
        assert_eq!(heard, ["err", "out", "unfinished"]);
        drop(process);
    }

    #[test]
    fn a_program_that_is_heard_sees_its_input_end_with_us() {
        let mut script = Command::new("sh");
        script.args(["-c", "exec cat"]);
        let (mut process, lines) = Process::spawn_heard(&mut script).expect("sh runs");
        assert!(process.ended().expect("it can be asked").is_none());
        drop(process);
        assert_eq!(lines.iter().count(), 0);
    }

    #[test]
    fn a_program_that_runs_on_is_interrupted() {
        let ctrl_c = CtrlC::watch().expect("SIGINT can be watched");
        let status = shell("exec sleep 600").stop(&ctrl_c).expect("it ends");
        assert_eq!(exit_code(status), 128 + 2);
    }
}
