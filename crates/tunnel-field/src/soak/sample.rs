//! Samples of the process's tasks, descriptors and memory, once a second.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::world::World;
use crate::MEMORY;

/// The tolerance for growth of memory, in bytes. The tunnels at the end are not those of the
/// beginning, and their tables, windows and buffers have grown with another load.
const MEMORY_SLACK: usize = 4 << 20;

/// A sample.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Seconds since the start.
    pub(crate) at: f64,
    /// Allocated memory, in bytes.
    pub(crate) allocated: usize,
    /// Resident memory in bytes, if the system reports it.
    pub(crate) resident: Option<usize>,
    /// Tasks of the gateway, the devices and the clients of forward tunnels. In a series: the tasks
    /// of the process's runtime.
    pub(crate) tasks: usize,
    pub(crate) descriptors: Option<usize>,
}

impl Sample {
    pub(crate) fn now(world: &World, at: f64) -> Self {
        Self {
            tasks: world.tasks(),
            ..Self::of_process(at)
        }
    }

    fn of_process(at: f64) -> Self {
        let runtime = tokio::runtime::Handle::current().metrics();
        Self {
            at,
            allocated: MEMORY.allocated(),
            resident: resident(),
            tasks: runtime.num_alive_tasks(),
            descriptors: std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count),
        }
    }

    /// The growth since an earlier sample, one line for each kind. Memory has a tolerance of 4 MiB.
    pub(crate) fn leak_since(&self, before: &Self) -> Vec<String> {
        let mut leaks = Vec::new();
        if self.tasks > before.tasks {
            leaks.push(format!("{} tasks, before {}", self.tasks, before.tasks));
        }
        if let (Some(now), Some(then)) = (self.descriptors, before.descriptors)
            && now > then
        {
            leaks.push(format!("{now} descriptors, before {then}"));
        }
        if self.allocated > before.allocated + MEMORY_SLACK {
            let (now, then) = (self.allocated, before.allocated);
            leaks.push(format!("{now} bytes allocated, before {then}"));
        }
        leaks
    }
}

fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kilobytes << 10)
}

/// A running series of samples.
pub(crate) struct Samples {
    start: Instant,
    taken: Arc<Mutex<Vec<Sample>>>,
    sampling: JoinHandle<()>,
}

impl Samples {
    pub(crate) fn start(_: &World) -> Self {
        let start = Instant::now();
        let taken = Arc::<Mutex<Vec<Sample>>>::default();
        let kept = taken.clone();
        let sampling = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1));
            loop {
                ticks.tick().await;
                let sample = Sample::of_process(start.elapsed().as_secs_f64());
                kept.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(sample);
            }
        });
        Self {
            start,
            taken,
            sampling,
        }
    }

    pub(crate) fn elapsed(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    pub(crate) fn stop(self) -> Vec<Sample> {
        self.sampling.abort();
        std::mem::take(&mut *self.taken.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
