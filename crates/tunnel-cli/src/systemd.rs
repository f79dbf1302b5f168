//! What systemd is told: readiness, a status line, the watchdog, the end. Nothing without NOTIFY_SOCKET.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::MissedTickBehavior;

/// The program does its work. A repetition only changes the status line.
pub(crate) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The gateways that an agent has tunnels to. The first tunnel makes it ready.
pub(crate) fn connected_to<'a>(gateways: impl Iterator<Item = &'a str>) {
    let gateways: Vec<_> = gateways.collect();
    match gateways.is_empty() {
        true => notify(&[NotifyState::Status("no tunnel: connecting")]),
        false => ready(&format!("connected to {}", gateways.join(", "))),
    }
}

/// The program drains and ends.
pub(crate) fn stopping() {
    notify(&[
        NotifyState::Stopping,
        NotifyState::Status("draining: calls in flight may end"),
    ]);
}

/// Reports twice in each interval of the watchdog, for as long as the runtime makes progress.
pub(crate) async fn watchdog() {
    let limit = sd_notify::watchdog_enabled();
    let Some(limit) = limit.filter(|limit| *limit > Duration::from_millis(1)) else {
        return;
    };
    if let Err(error) = report_progress(limit / 2).await {
        tracing::error!(%error, "the watchdog has ended");
    }
}

/// A report takes the timer, the scheduler and the I/O driver of the runtime: a byte goes to another task and back.
async fn report_progress(interval: Duration) -> std::io::Result<()> {
    let (mut here, mut there) = UnixStream::pair()?;
    tokio::spawn(async move {
        let (mut bytes, mut back) = there.split();
        tokio::io::copy(&mut bytes, &mut back).await
    });
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        here.write_all(&[0]).await?;
        here.read_exact(&mut [0]).await?;
        notify(&[NotifyState::Watchdog]);
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd was not told");
    }
}
