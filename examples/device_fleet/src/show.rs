//! The phases of the example, and the results that each must have.

use std::collections::BTreeMap;
use std::future::ready;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::{StreamExt, stream};
use tracing::info;

use crate::device::TUNNELS;
use crate::dispatch::To;
use crate::fleet::Fleet;
use crate::phase::{AtWork, Phase, Risk};
use crate::progress::Progress;
use crate::report::{Fate, Tally};

/// How long a device works on a call that a kill interrupts.
const ENDLESS: Duration = Duration::from_secs(600);

/// How long a device works on a call that is in flight during a drain.
const LONG: Duration = Duration::from_millis(300);

/// The share of the devices that fail: one in this many.
const ONE_IN: usize = 5;

/// A fleet and its phases.
#[derive(Debug)]
pub(crate) struct Show {
    fleet: Fleet,
    /// The fewest calls to each device in each phase.
    calls: usize,
    luck: fastrand::Rng,
}

impl Show {
    /// Starts the fleet, and waits until all devices are connected.
    pub(crate) async fn begin(devices: usize, calls: usize, seed: u64) -> Result<Self> {
        info!("--- {devices} devices connect, with {TUNNELS} tunnels each ---");
        let fleet = Fleet::start(devices).await?;
        info!("✓ Gateway listening on {}", fleet.address());
        let progress = Progress::of_devices(devices);
        let complete = fleet.complete(|there| progress.reach(there)).await;
        progress.end();
        complete?;
        info!("✓ {} tunnels open", devices * TUNNELS);
        Ok(Self {
            fleet,
            calls,
            luck: fastrand::Rng::with_seed(seed),
        })
    }

    /// Runs all phases. `tallies` has those that ended, also if one of them failed.
    pub(crate) async fn play(mut self, tallies: &mut Vec<Tally>) -> Result<()> {
        tallies.push(self.each_by_its_key("each by its key").await?);
        tallies.push(self.all_in_turn().await?);
        tallies.push(self.every_tunnel().await?);
        tallies.push(self.devices_are_killed().await?);
        tallies.push(self.gateway_is_killed().await?);
        tallies.push(self.gateway_is_replaced().await?);
        tallies.push(self.devices_are_drained().await?);
        tallies.push(self.each_by_its_key("each by its key, again").await?);
        let repeated = self.fleet.books().repeated();
        ensure!(repeated == 0, "{repeated} calls were processed twice");
        Ok(())
    }

    fn phase(&self, name: &'static str, risk: Risk) -> Phase {
        Phase::begin(name, &self.fleet, risk)
    }

    async fn each_by_its_key(&self, name: &'static str) -> Result<Tally> {
        info!("--- Every device is called by its key ---");
        let phase = self.phase(name, Risk::Nobodys);
        let nothing = ready(Ok(()));
        phase.during(self.fleet.keys(), self.calls, nothing).await?;
        Ok(phase.end("Each call was answered by the device that was meant"))
    }

    async fn all_in_turn(&self) -> Result<Tally> {
        info!("--- All devices are called in turn, over one channel ---");
        let phase = self.phase("all in turn", Risk::Nobodys);
        let devices = self.fleet.keys().len();
        // The tunnels take turns, not the devices.
        let turns = self.calls * TUNNELS;
        let calls = stream::iter(0..devices * turns)
            .map(|_| phase.call(&To::Next, Duration::ZERO))
            .buffer_unordered(devices);
        let outcomes: Vec<_> = calls.collect().await;
        let mut shares = BTreeMap::new();
        for outcome in outcomes {
            if let Fate::Answered(device) = outcome.fate {
                *shares.entry(device).or_insert(0) += 1;
            }
        }
        // If not all have answered, that is the error to report.
        let all_answered = shares.values().sum::<usize>() == devices * turns;
        ensure!(
            !all_answered || shares.values().all(|share| *share == turns),
            "turns were not even: {shares:?}"
        );
        Ok(phase.end(&format!("Each device had {turns} turns")))
    }

    async fn every_tunnel(&self) -> Result<Tally> {
        info!("--- Every tunnel carries one call ---");
        let phase = self.phase("one call to every tunnel", Risk::Nobodys);
        let handler = &self.fleet.gateway()?.desk().handler;
        let tunnels = handler.all_reverse_tunnels();
        ensure!(
            tunnels.len() == self.fleet.keys().len() * TUNNELS,
            "there are {} tunnels",
            tunnels.len()
        );
        for tunnel in tunnels {
            phase.call(&To::Tunnel(tunnel), Duration::ZERO).await;
        }
        Ok(phase.end("Each tunnel led to the device whose key it has"))
    }

    async fn devices_are_killed(&mut self) -> Result<Tally> {
        info!("--- Devices lose their power during calls, and come back ---");
        let victims = self.victims();
        let phase = self.phase("devices killed", Risk::Theirs(victims.clone()));
        let keys = self.fleet.keys().to_vec();
        let happening = async {
            let at_work = phase.put_to_work(&victims, ENDLESS).await?;
            phase.say(&format!("Killing {}", victims.join(", ")));
            self.fleet.kill_devices(&victims).await?;
            expect_lost(at_work).await?;
            self.fleet.start_devices(&victims)?;
            self.fleet.complete(|_| {}).await
        };
        phase.during(&keys, self.calls, happening).await?;
        Ok(phase.end("All of them are back"))
    }

    async fn gateway_is_killed(&mut self) -> Result<Tally> {
        info!("--- The gateway loses its power during calls, and comes back ---");
        let phase = self.phase("gateway killed", Risk::Everybodys);
        let keys = self.fleet.keys().to_vec();
        let happening = async {
            let at_work = phase.put_to_work(&keys, ENDLESS).await?;
            phase.say("Killing the gateway");
            self.fleet.kill_gateway().await?;
            expect_lost(at_work).await?;
            self.fleet.start_gateway().await?;
            self.fleet.complete(|_| {}).await
        };
        phase.during(&keys, self.calls, happening).await?;
        Ok(phase.end("All devices have found it again"))
    }

    async fn gateway_is_replaced(&mut self) -> Result<Tally> {
        info!("--- The gateway is replaced gracefully, during calls ---");
        let phase = self.phase("gateway replaced gracefully", Risk::Nobodys);
        let keys = self.fleet.keys().to_vec();
        let happening = async {
            let at_work = phase.put_to_work(&keys, LONG).await?;
            phase.say("Starting the next gateway, draining the last one");
            self.fleet.replace_gateway().await?;
            expect_answered(at_work).await?;
            self.fleet.complete(|_| {}).await
        };
        phase.during(&keys, self.calls, happening).await?;
        Ok(phase.end("All devices have moved to the next one, and no call has noticed"))
    }

    async fn devices_are_drained(&mut self) -> Result<Tally> {
        info!("--- Devices are restarted gracefully, during calls ---");
        let victims = self.victims();
        let phase = self.phase("devices restarted gracefully", Risk::Nobodys);
        let keys = self.fleet.keys().to_vec();
        let happening = async {
            let at_work = phase.put_to_work(&victims, LONG).await?;
            phase.say(&format!("Draining {}", victims.join(", ")));
            self.fleet.drain_devices(&victims).await?;
            expect_answered(at_work).await?;
            self.fleet.start_devices(&victims)?;
            self.fleet.complete(|_| {}).await
        };
        phase.during(&keys, self.calls, happening).await?;
        Ok(phase.end("All of them are back, and no call has noticed"))
    }

    /// The devices that fail in this phase.
    fn victims(&mut self) -> Vec<String> {
        let keys = self.fleet.keys();
        let count = keys.len().div_ceil(ONE_IN);
        let mut victims = self.luck.choose_multiple(keys, count);
        victims.sort_unstable();
        victims.into_iter().cloned().collect()
    }
}

/// Checks that calls whose device or gateway was killed were not answered.
async fn expect_lost(calls: AtWork) -> Result<()> {
    for outcome in calls.outcomes().await {
        let lost = matches!(outcome.fate, Fate::Lost(_));
        ensure!(lost, "a call that cannot have an answer: {}", outcome.fate);
    }
    Ok(())
}

/// Checks that calls in flight at a drain have finished.
async fn expect_answered(calls: AtWork) -> Result<()> {
    for outcome in calls.outcomes().await {
        let answered = matches!(outcome.fate, Fate::Answered(_));
        ensure!(answered, "a call was not let finish: {}", outcome.fate);
    }
    Ok(())
}
