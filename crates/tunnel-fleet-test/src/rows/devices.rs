//! What devices do.

use std::collections::BTreeSet;

use anyhow::Result;

use super::{CALLS, Outcome, Stage, harmless, judged};
use crate::devices::key;
use crate::fleet::FIRST;
use crate::history::Judgement;
use crate::load::Load;

/// The devices of these rows.
const DEVICES: std::ops::Range<usize> = 0..12;

/// Devices open tunnels at another gateway, and then end the ones that they had.
pub(super) async fn moves(stage: &mut Stage<'_>) -> Result<Outcome> {
    let fleet = &mut stage.world.fleet;
    let load = Load::start(&fleet.plan(DEVICES))?;
    load.more(CALLS).await?;
    let mut faults = Vec::new();
    for (device, session) in DEVICES.map(|device| (device, FIRST + 1)) {
        stage.progress.at(format!("{} moves away", key(device)));
        let away = [fleet.agents(device + 2)];
        faults.push(harmless(load.now()));
        let host = fleet.host(device);
        host.connect(&key(device), session, &away).await?;
        host.stop(&key(device), FIRST).await?;
    }
    load.more(CALLS).await?;
    for (device, session) in DEVICES.map(|device| (device, FIRST + 1)) {
        stage.progress.at(format!("{} comes back", key(device)));
        let home = [fleet.agents(device), fleet.agents(device + 1)];
        faults.push(harmless(load.now()));
        let host = fleet.host(device);
        host.connect(&key(device), FIRST, &home).await?;
        host.stop(&key(device), session).await?;
    }
    load.more(CALLS).await?;
    let calls = load.stop().await;
    let words = format!("{} moves", faults.len());
    judged(stage.judge(&calls, &faults, None).await?, words)
}

/// A second device comes with a key that is in use, at another gateway, and goes away.
pub(super) async fn two(stage: &mut Stage<'_>) -> Result<Outcome> {
    let (fleet, second) = (&mut stage.world.fleet, FIRST + 1);
    let load = Load::start(&fleet.plan(DEVICES))?;
    load.more(CALLS).await?;
    let mut faults = vec![harmless(load.now())];
    for device in DEVICES {
        let other = [fleet.agents(device + 2)];
        let host = fleet.host(device);
        host.connect(&key(device), second, &other).await?;
    }
    load.more(2 * CALLS).await?;
    faults.push(harmless(load.now()));
    for device in DEVICES {
        fleet.host(device).stop(&key(device), second).await?;
    }
    load.more(CALLS).await?;
    let calls = load.stop().await;
    let mut judgement = stage.judge(&calls, &faults, None).await?;
    let second = second.to_string();
    let answers = calls
        .iter()
        .filter(|call| call.outcome.as_ref() == Ok(&second));
    let called: BTreeSet<_> = answers.map(|call| call.key).collect();
    if called.len() != DEVICES.len() {
        let problem = format!("only {} of the second devices were called", called.len());
        judgement.problems.push(problem);
    }
    judged(judgement, "")
}

/// Looks at the books of the whole run.
pub(super) async fn never_twice(stage: &mut Stage<'_>) -> Result<Outcome> {
    stage.world.book(&[]).await?;
    let served = &stage.world.served;
    let judgement = Judgement {
        calls: served.len(),
        failed: served.failed(),
        problems: served.problems(),
        ..Judgement::default()
    };
    judged(
        judgement,
        "all calls of this run, those that looked for devices too",
    )
}
