//! Ctrl-C, and what a program's end looks like after it.

use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells whether Ctrl-C was pressed since this was created.
///
/// From then on Ctrl-C no longer ends this program, so that it can wait for the
/// others: a terminal tells all of them at once.
#[derive(Debug)]
pub struct CtrlC(Arc<AtomicBool>);

impl CtrlC {
    /// Begins to watch for Ctrl-C.
    ///
    /// # Errors
    ///
    /// Where the signal cannot be watched.
    pub fn watch() -> io::Result<Self> {
        let pressed = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&pressed))?;
        Ok(Self(pressed))
    }

    /// Whether it was pressed.
    pub fn pressed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The code with which to end on behalf of a program that ended so: its own, or
/// what a shell would say of a program that a signal ended.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| signal(status).map(|signal| 128 + signal));
    // What does not fit is a failure still, and must not wrap to a success.
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
