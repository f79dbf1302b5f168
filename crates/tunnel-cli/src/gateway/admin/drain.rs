//! The drain of the whole gateway: who asks for it, and how far it is.

use std::time::Duration;

use tokio::sync::watch;
use tunnel_fleet::Fleet;
use tunnel_server::TunnelServiceHandler;

/// How far the drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// None was asked for.
    Serving,
    /// The gateway drains: calls in flight are ended after this time.
    Draining(Duration),
    /// No tunnel is left, and none is accepted.
    Drained,
}

/// The drain of the whole gateway. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Drain {
    phase: watch::Sender<Phase>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Serving),
        }
    }
}

impl Drain {
    /// Asks for the drain. Asked again, it can end the calls in flight earlier.
    pub(crate) fn begin(&self, timeout: Duration) {
        self.phase.send_if_modified(|phase| match phase {
            Phase::Drained => false,
            phase => {
                *phase = Phase::Draining(timeout);
                true
            }
        });
    }

    /// How far the drain is, now and after each change.
    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Waits until the gateway is drained.
    pub(crate) async fn drained(&self) {
        let mut phase = self.phase();
        // Cannot fail: the sender is borrowed here.
        let _ = phase.wait_for(|phase| *phase == Phase::Drained).await;
    }

    /// Waits until the drain is asked for, says "not ready", and drains the handler after `notice`. Returns when no
    /// tunnel is left.
    pub(crate) async fn run(
        &self,
        handler: &TunnelServiceHandler,
        fleet: &Fleet,
        ready: &watch::Sender<bool>,
        notice: Duration,
    ) {
        let mut phase = self.phase();
        // Cannot fail: the sender is borrowed here.
        let _ = phase.wait_for(|phase| *phase != Phase::Serving).await;
        ready.send_replace(false);
        fleet.begin_drain();
        if !fleet.is_alone() {
            handler.retire(notice);
        }
        tokio::time::sleep(notice).await;
        while let Phase::Draining(timeout) = { *phase.borrow_and_update() } {
            tokio::select! {
                () = handler.drain(timeout) => break,
                // Asked for again: with another timeout.
                _ = phase.changed() => {}
            }
        }
        // The hooks have then seen the last tunnel close. Cannot fail: the handler is borrowed here.
        let _ = handler.open_tunnels().wait_for(|open| *open == 0).await;
        self.phase.send_replace(Phase::Drained);
    }
}
