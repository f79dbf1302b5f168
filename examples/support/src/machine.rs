//! What stands in for a machine: programs whose power can be cut.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

/// How long the thread of a machine may take to end. It has nothing to wait for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A runtime of its own. Nothing that runs there survives it.
#[derive(Debug)]
pub struct Machine {
    handle: Handle,
    /// `None` when the power is off.
    runtime: Option<Runtime>,
}

impl Machine {
    /// Switches one on.
    ///
    /// # Errors
    ///
    /// Where the system has no thread for it.
    pub fn start(name: &str) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(name)
            .enable_all()
            .build()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// Runs a program on the machine.
    pub fn run<F>(&self, program: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.handle.spawn(program)
    }

    /// How many tasks run on it.
    pub fn tasks(&self) -> usize {
        self.handle.metrics().num_alive_tasks()
    }

    /// Cuts the power. No program gets to say goodbye: the operating system closes
    /// their connections, and has done so when this returns.
    ///
    /// # Errors
    ///
    /// Where its thread does not end.
    pub async fn cut(mut self) -> Result<()> {
        let Some(runtime) = self.runtime.take() else {
            return Ok(());
        };
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE))
            .await
            .context("a machine did not stop")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A runtime must not be waited for where others run.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
