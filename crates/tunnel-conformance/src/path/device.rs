//! A far end that dials: it serves through reverse tunnels.

use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Builder, Runtime};

/// A runtime of its own for everything that dials, so that it can be killed like a process.
#[derive(Debug)]
pub(super) struct DeviceRuntime {
    runtime: Mutex<Option<Runtime>>,
}

impl DeviceRuntime {
    pub(super) fn start() -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("device")
            .enable_all()
            .build()
            .expect("a runtime for the device");
        Self {
            runtime: Mutex::new(Some(runtime)),
        }
    }

    /// Runs something on the device, as long as that lives.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*runtime {
            runtime.spawn(task);
        }
    }

    /// Drops every task of the device where it stands, and its sockets with them.
    pub(super) fn kill(&self) {
        let mut runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for DeviceRuntime {
    fn drop(&mut self) {
        self.kill();
    }
}
