//! The open tunnels of a server or channel, and whether it has stopped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tunnel_core::{EndReason, Stats};
use tunnel_tonic::{Tunnel, TunnelId, TunnelInfo, TunnelReporter};

use super::status::StopReason;

/// The open tunnels of one server or channel.
#[derive(Debug)]
pub(crate) struct Registry {
    tunnels: Mutex<HashMap<TunnelId, Listed>>,
    /// Changes whenever a tunnel is closed.
    closed: watch::Sender<()>,
    stopped: watch::Sender<Option<StopReason>>,
    pub(crate) reporter: TunnelReporter,
}

#[derive(Debug)]
struct Listed {
    tunnel: Tunnel,
    link: Option<usize>,
    report: Report,
}

/// Whether the opening of a tunnel was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Report {
    No,
    /// Its end is reported by the task that reports its opening.
    Underway,
    Done,
}

/// A tunnel's entry in the registry. Dropping it removes the tunnel.
#[derive(Debug)]
pub(crate) struct Entry {
    registry: Arc<Registry>,
    id: TunnelId,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let removed = self.registry.lock().remove(&self.id);
        self.registry.closed.send_replace(());
        if let Some(listed) = removed.filter(|listed| listed.report == Report::Done) {
            self.registry.closed(&listed.tunnel);
        }
    }
}

impl Registry {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            tunnels: Mutex::default(),
            closed: watch::Sender::new(()),
            stopped: watch::Sender::new(None),
            reporter: TunnelReporter::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TunnelId, Listed>> {
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists a tunnel of a link, or of none. `None` if the links were stopped.
    pub(crate) fn insert(self: &Arc<Self>, tunnel: &Tunnel, link: Option<usize>) -> Option<Entry> {
        let id = tunnel.info().id();
        let mut tunnels = self.lock();
        // Under the lock: either this sees the stop, or the stop sees the tunnel.
        if self.stop_reason().is_some() {
            return None;
        }
        let tunnel = tunnel.clone();
        tunnels.insert(
            id,
            Listed {
                tunnel,
                link,
                report: Report::No,
            },
        );
        let registry = self.clone();
        Some(Entry { registry, id })
    }

    /// Reports a tunnel that has opened, unless it is closed already.
    pub(crate) fn opened(&self, tunnel: &Tunnel) {
        let info = tunnel.info();
        if !self.set_report(info.id(), Report::Underway) {
            return;
        }
        self.reporter.opened(info);
        if !self.set_report(info.id(), Report::Done) {
            self.closed(tunnel);
        }
    }

    /// `false` if the tunnel is closed.
    fn set_report(&self, id: TunnelId, report: Report) -> bool {
        let mut tunnels = self.lock();
        let listed = tunnels.get_mut(&id);
        listed.map(|listed| listed.report = report).is_some()
    }

    fn closed(&self, tunnel: &Tunnel) {
        let reason = tunnel.end_reason().unwrap_or(EndReason::PeerClosed);
        self.reporter
            .closed(tunnel.info(), &reason, &tunnel.stats());
    }

    /// Refuses new tunnels from now on, and ends the listed ones with `end`. The first reason is kept.
    pub(crate) fn stop(&self, reason: StopReason, end: impl Fn(&Tunnel)) {
        let tunnels: Vec<_> = {
            let tunnels = self.lock();
            self.stopped.send_if_modified(|stopped| {
                let first = stopped.is_none();
                stopped.get_or_insert(reason);
                first
            });
            tunnels
                .values()
                .map(|listed| listed.tunnel.clone())
                .collect()
        };
        tunnels.iter().for_each(end);
    }

    pub(crate) fn stop_reason(&self) -> Option<StopReason> {
        *self.stopped.borrow()
    }

    /// Waits until the links are stopped.
    pub(crate) async fn stopped(&self) -> StopReason {
        let mut stopped = self.stopped.subscribe();
        let reason = stopped.wait_for(Option::is_some).await;
        // Cannot fail: the sender is borrowed here.
        reason.ok().and_then(|r| *r).unwrap_or(StopReason::Dropped)
    }

    /// Waits until no tunnel of a link is open.
    pub(crate) async fn none_of(&self, link: usize) {
        self.none(|listed| listed.link == Some(link)).await;
    }

    /// Waits until no tunnel is open.
    pub(crate) async fn none_left(&self) {
        self.none(|_| true).await;
    }

    async fn none(&self, wanted: impl Fn(&Listed) -> bool) {
        let mut closed = self.closed.subscribe();
        // Cannot fail: the sender is borrowed here.
        let _ = closed
            .wait_for(|()| !self.lock().values().any(&wanted))
            .await;
    }

    /// Whether a tunnel of a link is open.
    pub(crate) fn has_any_of(&self, link: usize) -> bool {
        self.lock().values().any(|listed| listed.link == Some(link))
    }

    /// The tunnels of a link.
    pub(crate) fn tunnels_of(&self, link: usize) -> Vec<Tunnel> {
        let tunnels = self.lock();
        let of_link = tunnels.values().filter(|listed| listed.link == Some(link));
        of_link.map(|listed| listed.tunnel.clone()).collect()
    }

    pub(crate) fn infos(&self) -> Vec<TunnelInfo> {
        let tunnels = self.lock();
        let mut infos: Vec<_> = tunnels.values().map(|l| l.tunnel.info().clone()).collect();
        infos.sort_by_key(TunnelInfo::id);
        infos
    }

    pub(crate) fn stats(&self) -> Vec<(TunnelId, Stats)> {
        let tunnels: Vec<_> = self.lock().values().map(|l| l.tunnel.clone()).collect();
        let stats = tunnels.iter().map(|t| (t.info().id(), t.stats()));
        let mut stats: Vec<_> = stats.collect();
        stats.sort_by_key(|&(id, _)| id);
        stats
    }
}
