//! Keeps a tunnel up: opens the next one when it has ended.

use std::time::Instant;

use anyhow::{Result, bail};
use tokio::sync::watch;
use tracing::info;
use tunnel_client::{LinkState, LinkStatus, Report, ReverseTunnelServer};

use crate::teller::Teller;

/// Keeps a tunnel up and logs its state, until it is stopped.
pub(crate) async fn run(device: ReverseTunnelServer, teller: &Teller) -> Result<()> {
    let links = device.handle().watch();
    tokio::select! {
        // A change is logged before the next one.
        biased;
        () = say_changes(links, teller) => bail!("the tunnel is not watched any more"),
        reason = device.run() => info!("{reason}"),
    }
    Ok(())
}

async fn say_changes(mut links: watch::Receiver<Vec<LinkStatus>>, teller: &Teller) {
    let mut last = Trouble::None;
    while links.changed().await.is_ok() {
        // There is one link for the one server.
        let link = links.borrow_and_update().first().cloned();
        if let Some(link) = link {
            say(&link, teller, &mut last);
        }
    }
}

/// Not every change is logged, and some come together.
fn say(link: &LinkStatus, teller: &Teller, last: &mut Trouble) {
    let trouble = Trouble::of(link);
    let news = *last != trouble;
    match link.state() {
        LinkState::Connected(tunnel) => teller.opened(link.attempts(), tunnel.id()),
        LinkState::BackingOff { until, .. } => {
            teller.opening(link.attempts());
            if news {
                say_backing_off(link, *until);
            }
        }
        LinkState::Draining => {
            if news {
                info!("The server drains the tunnel: opening another one...");
            }
            teller.opening(link.attempts());
        }
        _ => teller.opening(link.attempts()),
    }
    *last = trouble;
}

fn say_backing_off(link: &LinkStatus, until: Instant) {
    let why = link.last_error().map(|error| Report(error).to_string());
    let why = why.unwrap_or_else(|| "no error".to_owned());
    let wait = until.saturating_duration_since(Instant::now());
    let wait = wait.as_secs_f64();
    info!("Tunnel down: {why}; retrying in {wait:.1} s");
}

/// Why no tunnel takes calls, if none does.
#[derive(PartialEq)]
enum Trouble {
    None,
    BackingOff(Instant),
    Draining,
}

impl Trouble {
    fn of(link: &LinkStatus) -> Self {
        match link.state() {
            LinkState::BackingOff { until, .. } => Self::BackingOff(*until),
            LinkState::Draining => Self::Draining,
            _ => Self::None,
        }
    }
}
