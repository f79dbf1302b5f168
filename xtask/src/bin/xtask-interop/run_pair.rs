//! Runs a pair: starts two processes, reads their output, and always ends them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tunnel_process::CtrlC;

use crate::lines::{Listener, port_in};
use crate::matrix::{Direction, Pair};
use crate::outcome::{Ran, Verdict};
use crate::program::Program;
use crate::setup::Programs;
use crate::start;

/// The names of the two processes in logs and messages.
const CALLER: &str = "the caller";
const HANDLER: &str = "the handler";

/// The timeouts of a run.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    /// For a program to print its port.
    start: Duration,
    /// For all cases together. The peers limit a single case to 30 s.
    cases: Duration,
    /// For a caller whose handler has ended: long enough for the current case to report its
    /// verdict.
    alone: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(30),
            cases: Duration::from_secs(300),
            alone: Duration::from_secs(15),
        }
    }
}

/// The interval between checks of whether a process has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How a program ended: by itself with this status, or stopped for this reason.
type Ending = Result<ExitStatus, String>;

/// Runs the cases of a pair and returns the results. `heard` receives the number of cases that have
/// ended.
///
/// # Errors
///
/// If the programs cannot be started, or Ctrl-C was pressed. Programs that fail, crash or hang are
/// not an error but a result.
pub(crate) fn run(
    pair: &Pair,
    cases: &[String],
    programs: &Programs,
    log: &Path,
    ctrl_c: &CtrlC,
    heard: impl Fn(usize),
) -> Result<Ran> {
    let start = Instant::now();
    let session = Session {
        patience: Patience::default(),
        ctrl_c,
        log,
    };
    let listener = Listener::new(pair.caller, pair.direction, cases);
    let serve = |port| start::handler(pair, programs, port);
    let call = |port| start::caller(pair, programs, port, cases);
    let mut ran = match pair.direction {
        Direction::Forward => session.run((HANDLER, &serve), (CALLER, &call), listener, heard),
        Direction::Reverse => session.run((CALLER, &call), (HANDLER, &serve), listener, heard),
    }?;
    ran.seconds = start.elapsed().as_secs_f64();
    Ok(ran)
}

/// A role, and the function that makes its command: with the port to dial, or `None` to listen.
type Role<'a> = (&'static str, &'a dyn Fn(Option<u16>) -> Result<Command>);

/// The constant settings of a pair's run.
struct Session<'a> {
    patience: Patience,
    ctrl_c: &'a CtrlC,
    log: &'a Path,
}

impl Session<'_> {
    /// Starts the program that listens, then the one that dials, and reads the caller's verdicts.
    fn run(
        &self,
        (listening, listen): Role<'_>,
        (dialling, dial): Role<'_>,
        mut listener: Listener,
        heard: impl Fn(usize),
    ) -> Result<Ran> {
        let mut first = Program::start(listening, &mut listen(None)?)?;
        let port = match self.wait_for_port(&mut first)? {
            Ok(port) => port,
            Err(why) => {
                self.write_log(&mut [&mut first])?;
                let ending = format!("{why}; {}", first.last_words());
                return Ok(Ran {
                    ending,
                    ..Ran::default()
                });
            }
        };
        let second = Program::start(dialling, &mut dial(Some(port))?)?;
        let (mut caller, mut handler) = match listening {
            CALLER => (first, second),
            _ => (second, first),
        };
        let ending = self.follow(&mut caller, &mut handler, &mut listener, heard)?;
        self.write_log(&mut [&mut caller, &mut handler])?;
        let verdicts = listener.into_verdicts();
        Ok(Ran {
            trouble: trouble(&mut caller, &ending, &mut handler, &verdicts)?,
            ending: describe(&mut caller, &ending, &mut handler),
            verdicts,
            seconds: 0.0,
        })
    }

    /// The port that a program prints, or the reason why it printed none.
    fn wait_for_port(&self, program: &mut Program) -> Result<Result<u16, String>> {
        let start = Instant::now();
        loop {
            if let Some(line) = program.next_line(POLL_INTERVAL) {
                if let Some(port) = port_in(line) {
                    return Ok(Ok(port));
                }
                continue;
            }
            self.stop_if_pressed()?;
            if let Some(status) = program.ended()? {
                return Ok(Err(program.describe_end(status)));
            }
            if start.elapsed() > self.patience.start {
                return Ok(Err(program.describe_silence()));
            }
        }
    }

    /// Reads the caller's output until the caller ends or has to be stopped.
    fn follow(
        &self,
        caller: &mut Program,
        handler: &mut Program,
        listener: &mut Listener,
        heard: impl Fn(usize),
    ) -> Result<Ending> {
        let start = Instant::now();
        let mut alone_since = None;
        loop {
            if let Some(line) = caller.next_line(POLL_INTERVAL) {
                listener.hear(line);
                heard(listener.heard());
            }
            self.stop_if_pressed()?;
            let ended = match listener.is_done() {
                true => Some(caller.stop()?),
                false => caller.ended()?,
            };
            if let Some(status) = ended {
                while let Some(line) = caller.next_line(Duration::ZERO) {
                    listener.hear(line);
                }
                return Ok(Ok(status));
            }
            if let Some(status) = handler.ended()? {
                let since: &mut Instant = alone_since.get_or_insert_with(Instant::now);
                if since.elapsed() > self.patience.alone {
                    let ended = handler.describe_end(status);
                    return Ok(Err(format!("{ended}, and {CALLER} was left alone")));
                }
            }
            if start.elapsed() > self.patience.cases {
                let seconds = self.patience.cases.as_secs();
                return Ok(Err(format!("{CALLER} did not end within {seconds} s")));
            }
        }
    }

    fn stop_if_pressed(&self) -> Result<()> {
        if self.ctrl_c.pressed() {
            bail!("stopped by Ctrl-C");
        }
        Ok(())
    }

    fn write_log(&self, programs: &mut [&mut Program]) -> Result<()> {
        let logs: Vec<_> = programs.iter_mut().map(|program| program.log()).collect();
        fs::write(self.log, logs.concat())
            .with_context(|| format!("cannot write {}", self.log.display()))
    }
}

/// The reason why cases have no verdict.
fn describe(caller: &mut Program, ending: &Ending, handler: &mut Program) -> String {
    let how = match ending {
        Ok(status) => caller.describe_end(*status),
        Err(why) => why.clone(),
    };
    format!("{how}; {}; {}", caller.last_words(), handler.last_words())
}

/// An error that no case reports: a program that ended too early or with a failure.
fn trouble(
    caller: &mut Program,
    ending: &Ending,
    handler: &mut Program,
    verdicts: &BTreeMap<String, Verdict>,
) -> Result<Option<String>> {
    if let Some(status) = handler.ended()?
        && !status.success()
    {
        let (end, words) = (handler.describe_end(status), handler.last_words());
        return Ok(Some(format!("{end} before it was asked to; {words}")));
    }
    let all_passed = verdicts.values().all(|verdict| *verdict == Verdict::Pass);
    Ok(match ending {
        Ok(status) if all_passed && !status.success() => {
            let (end, words) = (caller.describe_end(*status), caller.last_words());
            Some(format!("{end}, and no case had failed; {words}"))
        }
        _ => None,
    })
}

#[cfg(all(test, unix))]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;
    use std::time::Duration;

    use tunnel_process::CtrlC;

    use super::{CALLER, HANDLER, Patience, Session};
    use crate::lines::Listener;
    use crate::matrix::{Direction, Peer};
    use crate::outcome::{Ran, Verdict};

    const SERVING: &str = "echo LISTENING 1; exec cat";

    /// Runs two shell scripts as a pair with two cases.
    fn run(handler: &str, caller: &str) -> Ran {
        run_for(Duration::from_secs(60), handler, caller)
    }

    fn run_for(limit: Duration, handler: &str, caller: &str) -> Ran {
        let cases = ["unary", "echo"].map(str::to_owned);
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            Ok(command)
        };
        let log = log_file(handler, caller);
        let session = Session {
            patience: Patience {
                start: Duration::from_secs(30),
                cases: limit,
                alone: Duration::ZERO,
            },
            ctrl_c: &CtrlC::watch().expect("SIGINT can be watched"),
            log: &log,
        };
        let listener = Listener::new(Peer::Go, Direction::Forward, &cases);
        let handler = |_| shell(handler);
        let caller = |_| shell(caller);
        let ran = session.run((HANDLER, &handler), (CALLER, &caller), listener, |_| ());
        std::fs::remove_file(&log).expect("there is a log");
        ran.expect("they run")
    }

    fn log_file(handler: &str, caller: &str) -> PathBuf {
        let name: String = [handler, caller].concat();
        let name = name.replace(|c: char| !c.is_alphanumeric(), "");
        std::env::temp_dir().join(format!("interop-{}-{name}", std::process::id()))
    }

    #[test]
    fn a_caller_is_heard_to_its_end() {
        let caller = "echo CASE unary PASS; echo CASE echo FAIL no; echo FAIL 1 of 2; exit 1";
        let ran = run(SERVING, caller);
        assert_eq!(ran.verdicts["unary"], Verdict::Pass);
        assert_eq!(ran.verdicts["echo"], Verdict::Fail("no".to_owned()));
        assert_eq!(ran.trouble, None);
    }

    #[test]
    fn a_caller_that_hangs_is_killed() {
        let ran = run_for(Duration::ZERO, SERVING, "exec sleep 600");
        assert!(ran.verdicts.is_empty());
        let expected = "the caller did not end within 0 s; the caller said nothing";
        assert!(ran.ending.starts_with(expected), "{}", ran.ending);
    }

    #[test]
    fn a_caller_that_crashes_has_its_status_and_last_words_told() {
        let ran = run(SERVING, "echo Traceback >&2; exit 3");
        let (before, words) = ran.ending.split_once("; ").expect("two parts");
        assert_eq!(before, "the caller ended (exit status: 3)");
        assert!(
            words.starts_with("the caller said last: Traceback;"),
            "{words}"
        );
    }

    #[test]
    fn a_handler_that_crashes_is_trouble_and_nobody_waits_for_its_caller() {
        let ran = run(
            "echo LISTENING 1; echo panic: no >&2; exit 2",
            "exec sleep 600",
        );
        let trouble = ran.trouble.expect("a crash is trouble");
        assert!(trouble.contains("exit status: 2"), "{trouble}");
        assert!(trouble.contains("panic: no"), "{trouble}");
        assert!(ran.ending.contains("left alone"), "{}", ran.ending);
    }

    #[test]
    fn a_handler_that_never_listens_is_why_no_case_was_tried() {
        let ran = run("echo no such thing >&2; exit 1", "exit 0");
        assert!(ran.verdicts.is_empty());
        assert_eq!(
            ran.ending,
            "the handler ended (exit status: 1); the handler said last: no such thing"
        );
    }
}
