//! When somebody wants a program to end.

use std::io;

/// Waits for Ctrl-C, and for the signal by which process managers end programs.
///
/// Either counts from the moment this was created, whether or not somebody waits
/// already; before, both end the program as they always do. So create it before
/// saying that the program is ready.
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
    /// Begins to watch.
    ///
    /// # Errors
    ///
    /// What the system has against it.
    #[cfg(unix)]
    pub fn watch() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Begins to watch.
    ///
    /// # Errors
    ///
    /// What the system has against it.
    #[cfg(windows)]
    pub fn watch() -> io::Result<Self> {
        let ctrl_c = tokio::signal::windows::ctrl_c()?;
        Ok(Self { ctrl_c })
    }

    /// Waits until the program is asked to end. Can be waited for again: it takes
    /// another signal then.
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
