//! The faults of links and processes.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use futures::future::join_all;
use tokio::time::sleep;
use tunnel_conformance::FaultProxy;
use tunnel_conformance::proxy::Way;

use super::world::World;

/// A fault with its random parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Cut(usize),
    Reset(usize),
    Freeze(usize, Duration),
    FreezeOneWay(usize, Way, Duration),
    /// The link has a delay for five seconds.
    Delay(usize, Duration),
    KillDevice(usize, Duration),
    DrainDevice(usize),
    KillGateway(Duration),
    /// All links are cut at once, as when a switch restarts.
    CutAll,
}

impl Fault {
    pub(crate) fn any(random: &mut fastrand::Rng, world: &World) -> Self {
        let link = random.usize(0..world.links().len());
        let device = random.usize(0..world.devices.len());
        let moment = Duration::from_millis(random.u64(100..3_000));
        // Some freezes end before they are noticed, others do not.
        let freeze = Duration::from_millis(random.u64(500..20_000));
        let way = [Way::ToTarget, Way::FromTarget][random.usize(0..2)];
        match random.u8(0..9) {
            0 => Self::Cut(link),
            1 => Self::Reset(link),
            2 => Self::Freeze(link, freeze),
            3 => Self::FreezeOneWay(link, way, freeze),
            4 => Self::Delay(link, moment / 10),
            5 => Self::KillDevice(device, moment),
            6 => Self::DrainDevice(device),
            7 => Self::KillGateway(moment),
            _ => Self::CutAll,
        }
    }

    /// Causes the fault and waits until it is over. Tunnels may still be down then.
    pub(crate) async fn happen(self, world: &mut World) -> Result<()> {
        match self {
            Self::Cut(link) => end(world.links()[link], FaultProxy::cut).await,
            Self::Reset(link) => end(world.links()[link], FaultProxy::reset).await,
            Self::CutAll => {
                let ends = world
                    .links()
                    .into_iter()
                    .map(|link| end(link, FaultProxy::cut));
                join_all(ends).await;
            }
            Self::Freeze(link, time) => {
                world.links()[link].freeze();
                sleep(time).await;
                world.links()[link].thaw();
            }
            Self::FreezeOneWay(link, way, time) => {
                world.links()[link].freeze_way(way);
                sleep(time).await;
                world.links()[link].thaw();
            }
            Self::Delay(link, delay) => {
                world.links()[link].set_delay(delay);
                sleep(Duration::from_secs(5)).await;
                world.links()[link].set_delay(Duration::ZERO);
                // Bytes in flight keep their delay.
                sleep(delay).await;
            }
            Self::KillDevice(device, pause) => world.restart_device(device, pause).await?,
            Self::DrainDevice(device) => {
                world.drain_device(device, Duration::from_secs(12)).await?;
            }
            Self::KillGateway(pause) => world.restart_gateway(pause).await?,
        }
        Ok(())
    }
}

/// Ends the connections of a link and waits for new ones.
async fn end(link: &FaultProxy, how: fn(&FaultProxy)) {
    let (accepted, open) = (link.accepted(), link.open());
    how(link);
    link.wait_accepted(accepted + open).await;
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut(link) => write!(f, "link {link} is cut"),
            Self::Reset(link) => write!(f, "link {link} is reset"),
            Self::Freeze(link, time) => write!(f, "link {link} freezes for {time:.1?}"),
            Self::FreezeOneWay(link, way, time) => {
                write!(f, "link {link} freezes {way:?} for {time:.1?}")
            }
            Self::Delay(link, delay) => write!(f, "link {link} takes {delay:.0?} each way"),
            Self::KillDevice(device, pause) => {
                write!(f, "device {device} is killed, back after {pause:.1?}")
            }
            Self::DrainDevice(device) => write!(f, "device {device} drains and restarts"),
            Self::KillGateway(pause) => write!(f, "the gateway is killed, back after {pause:.1?}"),
            Self::CutAll => write!(f, "all links are cut"),
        }
    }
}
