//! A server that dials, and serves through reverse tunnels.

use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Builder, Runtime};

/// A separate runtime for the dialling side, so that it can be killed like a process.
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

    /// Runs a task on the device, until the device is killed.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*runtime {
            runtime.spawn(task);
        }
    }

    /// Drops all tasks of the device at once, and with them its sockets.
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
