//! How a gateway stops.

use std::time::Duration;

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tunnel_server::Shutdown;

use super::settings::Settings;
use crate::signals::Signals;
use crate::systemd;

/// The library ends calls in flight this long before its timeout, so that their status is still sent.
const FAREWELL: Duration = Duration::from_secs(1);

/// The end of a gateway, which signals begin.
pub(crate) struct Stop {
    began: watch::Sender<bool>,
    /// Whether the gateway takes tunnels and calls.
    pub(crate) ready: watch::Sender<bool>,
    pub(crate) notice: Duration,
    timeout: Duration,
}

impl Stop {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            began: watch::Sender::new(false),
            ready: watch::Sender::new(false),
            notice: Duration::from_secs(settings.drain_notice.unwrap_or_default()),
            timeout: Duration::from_secs(settings.drain_timeout.unwrap_or_default()),
        }
    }

    /// Whether the stop has begun.
    pub(crate) fn began(&self) -> watch::Receiver<bool> {
        self.began.subscribe()
    }

    /// The steps for one listener.
    pub(crate) fn shutdown(&self) -> Shutdown {
        let mut began = self.began.subscribe();
        let ready = self.ready.clone();
        let signal = async move {
            // An error means that the gateway is dropped.
            let _ = began.wait_for(|began| *began).await;
        };
        let not_ready = async move {
            ready.send_replace(false);
        };
        Shutdown::on(signal)
            .timeout(self.timeout + FAREWELL)
            .not_ready(self.notice, not_ready)
    }

    /// Catches signals from now on. The future stops at SIGTERM or Ctrl-C, and resolves at the second.
    pub(crate) fn signals(&self) -> Result<impl Future<Output = ()>> {
        let signals = Signals::catch()?;
        // Once caught, it never ends the program, even before the reloader waits for it.
        drop(signal(SignalKind::hangup())?);
        Ok(self.stop_at(signals))
    }

    async fn stop_at(&self, mut signals: Signals) {
        signals.next().await;
        systemd::stopping();
        tracing::info!(
            "stopping: calls in flight may go on for {:?}; a second signal ends them",
            self.timeout
        );
        self.began.send_replace(true);
        signals.next().await;
    }
}
