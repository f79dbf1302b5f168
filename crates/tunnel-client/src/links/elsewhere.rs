//! Looking for another instance of a gateway, while a link's tunnel is at the same one as that of another link.

use super::backoff::Steps;
use super::link::Link;
use super::reconnect::Plan;
use super::seats::Seats;
use super::shared::Live;
use super::status::DownReason;

impl Link {
    /// Waits until the link's tunnel is spare, and opens tunnels until one is at another instance. The link keeps its
    /// tunnel meanwhile, so that there are never fewer tunnels than before.
    pub(super) async fn elsewhere(&self) -> Live {
        let seats = &self.primary.seats;
        let mut changed = seats.subscribe();
        let mut steps = Steps::new(&self.shared.settings.backoff);
        loop {
            let is_spare = |seats: &Seats| seats.is_spare(self.index);
            // An error is impossible: the sender is borrowed here.
            let _ = changed.wait_for(is_spare).await;
            let soon = steps.first(&mut fastrand::f64);
            let mut wait = soon;
            seats.send_modify(|seats| wait = seats.next_try(soon));
            tokio::time::sleep(wait).await;
            if !is_spare(&seats.borrow()) {
                continue;
            }
            match self.attempt(&self.primary).await {
                Ok(live) => {
                    if self.takes(&live) {
                        self.set_connected(&live);
                        return live;
                    }
                    self.shared.discard(&live);
                }
                Err(error) => {
                    let reason = DownReason::NotOpened(error);
                    let plan = Plan::after_failure(&reason, &mut steps, &mut fastrand::f64);
                    tokio::time::sleep(plan.wait).await;
                }
            }
        }
    }

    /// Whether a tunnel is at an instance where no other link is, which is then that of this link.
    fn takes(&self, live: &Live) -> bool {
        let mut taken = false;
        self.primary.seats.send_modify(|seats| {
            let info = live.tunnel.info();
            taken = live.tunnel.end_reason().is_none() && seats.try_move(self.index, info);
        });
        taken
    }
}
