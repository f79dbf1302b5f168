//! A simulated machine, whose power can be cut.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

/// How long the thread of a machine may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A machine: a runtime in its own thread.
#[derive(Debug)]
pub struct Machine {
    handle: Handle,
    /// `None` after the power was cut.
    runtime: Option<Runtime>,
}

impl Machine {
    /// Starts a machine.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started.
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

    /// The number of tasks on the machine.
    pub fn tasks(&self) -> usize {
        self.handle.metrics().num_alive_tasks()
    }

    /// Cuts the power. The programs end without a goodbye, and the operating system has
    /// closed their connections when this returns.
    ///
    /// # Errors
    ///
    /// If its thread does not end.
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
        // A runtime must not block inside another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
