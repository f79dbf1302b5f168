//! What devices are told about their next tunnels: over how long to spread their return, renewed while their tunnels
//! are open, and where to go when they are drained.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::sleep;
use tunnel_core::Notice;
use tunnel_tonic::Direction;

use crate::registry::Registry;

/// How often each tunnel is told.
const EVERY: Duration = Duration::from_secs(60);

/// In how many steps all tunnels are told, so that a gateway with many of them has no peaks.
const STEPS: u32 = 60;

/// Whether a task renews what the tunnels were told. It holds this while it runs.
#[derive(Debug)]
struct Running(Arc<AtomicBool>);

impl Running {
    fn begin(runs: &Arc<AtomicBool>) -> Option<Self> {
        let first = !runs.swap(true, Ordering::SeqCst);
        first.then(|| Self(runs.clone()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// Refuses new tunnels, and asks devices to open their next ones within half of a time, so that the other half is
/// left for those that are slow. Their tunnels go on.
pub(crate) fn retire(registry: &Registry, grace: Duration) {
    registry.refuse_openings();
    let mut notice = Notice::new();
    notice.siblings = registry.siblings();
    notice.grace = Some(grace / 2);
    let tunnels = registry.tunnels().into_iter();
    for tunnel in tunnels.filter(|tunnel| tunnel.direction() == Direction::Reverse) {
        tunnel.tunnel().tell(notice.clone());
        tunnel.tunnel().retire();
    }
}

/// What tunnels are told when all of them are drained. Siblings are there already; without them, the next server
/// must not be met by all devices together.
pub(crate) fn farewell(registry: &Registry) -> Notice {
    let mut notice = Notice::new();
    notice.siblings = registry.siblings();
    if notice.siblings.is_empty() {
        notice.grace = registry.return_spread();
    }
    notice
}

/// Starts the task, unless it runs. Call it when a tunnel was listed.
pub(crate) fn renew(registry: &Arc<Registry>) {
    if let Some(running) = Running::begin(&registry.renews) {
        tokio::spawn(run(Arc::downgrade(registry), running));
    }
}

/// Runs until no tunnel is open.
async fn run(registry: Weak<Registry>, mut running: Running) {
    loop {
        let Some(ids) = registry.upgrade().map(|registry| registry.ids()) else {
            return;
        };
        let mut ids = ids.into_iter();
        for left in (1..=STEPS).rev() {
            sleep(EVERY / STEPS).await;
            let Some(registry) = registry.upgrade() else {
                return;
            };
            let share = ids.len().div_ceil(left as usize);
            let mut notice = Notice::new();
            notice.return_spread = registry.return_spread();
            for id in ids.by_ref().take(share) {
                if let Some(tunnel) = registry.tunnel(id) {
                    tunnel.tunnel().tell(notice.clone());
                }
            }
            if ids.len() > 0 || registry.is_used() {
                continue;
            }
            // A tunnel that is listed from here on either finds no task, or is seen below.
            let runs = running.0.clone();
            drop(running);
            let again = registry.is_used().then(|| Running::begin(&runs)).flatten();
            let Some(again) = again else {
                return;
            };
            running = again;
        }
    }
}
