//! Signals that ask a program to end.

use std::io;

/// Waits for Ctrl-C or SIGTERM.
///
/// Signals count from the moment this is created, and end the program before that.
/// So create it before announcing that the program is ready.
#[derive(Debug)]
pub struct Shutdown {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(windows)]
    ctrl_c: tokio::signal::windows::CtrlC,
}

impl Shutdown {
    /// Starts watching.
    ///
    /// # Errors
    ///
    /// If the signal handlers cannot be installed.
    #[cfg(unix)]
    pub fn watch() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Starts watching.
    ///
    /// # Errors
    ///
    /// If the signal handlers cannot be installed.
    #[cfg(windows)]
    pub fn watch() -> io::Result<Self> {
        let ctrl_c = tokio::signal::windows::ctrl_c()?;
        Ok(Self { ctrl_c })
    }

    /// Waits for a signal. A second call waits for another signal.
    pub async fn requested(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        #[cfg(windows)]
        self.ctrl_c.recv().await;
    }
}
