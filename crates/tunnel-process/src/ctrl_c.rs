//! Ctrl-C, and the exit codes of programs.

use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Records whether Ctrl-C was pressed since this value was created.
///
/// While it exists Ctrl-C does not end this program, so that it can wait for its child processes: a
/// terminal sends SIGINT to all of them at once.
#[derive(Debug)]
pub struct CtrlC(Arc<AtomicBool>);

impl CtrlC {
    /// Starts to watch for Ctrl-C.
    ///
    /// # Errors
    ///
    /// If no signal handler can be installed.
    pub fn watch() -> io::Result<Self> {
        let pressed = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&pressed))?;
        Ok(Self(pressed))
    }

    /// Whether Ctrl-C was pressed.
    pub fn pressed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The exit code that stands for a status: the program's own code, or for a program that a signal
/// ended 128 plus the signal, as in a shell.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| signal(status).map(|signal| 128 + signal));
    // A code that does not fit is a failure, and must not wrap around to 0.
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(unix)]
fn signal(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

#[cfg(not(unix))]
fn signal(_: ExitStatus) -> Option<i32> {
    None
}
