//! Programs that run beside this one: started, watched, and always ended.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::ctrl_c::CtrlC;
use crate::output::{Label, copy_lines, take_lines};

/// How often a running program is asked whether it has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long a program may take to end once it was asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// How long after a Ctrl-C a program is left alone before it is asked to end:
/// at a terminal it has seen the Ctrl-C itself.
const CTRL_C_GRACE: Duration = Duration::from_secs(2);

/// A program that was started here. It is killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts a program whose output goes wherever ours goes.
    ///
    /// # Errors
    ///
    /// Where it cannot be started.
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

    /// Starts a program whose output is shown line by line, with a label. The
    /// lines can also be received.
    ///
    /// # Errors
    ///
    /// Where it cannot be started.
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

    /// Starts a program whose output, both kinds mixed, is received and not shown.
    /// Its input stays open, and without a word, for as long as it is kept here.
    ///
    /// # Errors
    ///
    /// Where it cannot be started.
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

    /// The exit status, once the program has ended and its output was taken.
    ///
    /// # Errors
    ///
    /// Where the system does not tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        if status.is_some() {
            self.finish_output();
        }
        Ok(status)
    }

    /// Waits for the program to end by itself, or to be ended after a Ctrl-C.
    ///
    /// # Errors
    ///
    /// Where the system does not tell how it ended.
    pub fn wait(&mut self, ctrl_c: &CtrlC) -> Result<ExitStatus> {
        match self.wait_unless(|| ctrl_c.pressed())? {
            Some(status) => Ok(status),
            None => self.stop(ctrl_c),
        }
    }

    /// Asks the program to end as Ctrl-C does, unless it has seen one already,
    /// and kills it if it does not.
    ///
    /// # Errors
    ///
    /// Where it can neither be asked nor killed.
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
            eprintln!("{} does not end, killing it", self.name);
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

    /// Sends SIGINT, which lets the program end in its own way.
    fn interrupt(&self) -> Result<()> {
        // `kill` is built into every shell, but not a program on every system.
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
            // A panic of that thread has been reported where it happened.
            let _ = copying.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails for a program that has ended, which is as good.
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
