//! Rolling restarts: no call may fail.

use anyhow::Result;

use super::{CALLS, Outcome, Stage, harmless, judged};
use crate::etcd::NODES;
use crate::haproxy::Haproxy;
use crate::load::{Load, Plan};

/// Each gateway is restarted as soon as that costs no key. Callers use HAProxy.
pub(super) async fn gateways(stage: &mut Stage<'_>) -> Result<Outcome> {
    let directory = stage.world.directory().to_owned();
    let fleet = &mut stage.world.fleet;
    let haproxy = Haproxy::start(&fleet.gateways, &directory).await?;
    let load = Load::start(&Plan {
        gateways: vec![haproxy.address],
        direct: false,
        ..fleet.plan(fleet.keys())
    })?;
    load.more(CALLS).await?;
    let mut faults = Vec::new();
    for number in 0..fleet.gateways.len() {
        stage.progress.at(format!("gateway {number} is restarted"));
        faults.push(harmless(load.now()));
        fleet.gateways[number].stop().await?;
        load.more(CALLS).await?;
        fleet.gateways[number].begin().await?;
        load.more(CALLS).await?;
    }
    fleet.connected().await?;
    load.more(CALLS).await?;
    let calls = load.stop().await;
    judged(stage.judge(&calls, &faults, None).await?, "")
}

pub(super) async fn etcd(stage: &mut Stage<'_>) -> Result<Outcome> {
    let fleet = &stage.world.fleet;
    let load = Load::start(&fleet.plan(fleet.keys()))?;
    load.more(CALLS).await?;
    let mut faults = Vec::new();
    for node in 0..NODES {
        stage.progress.at(format!("node {node} is restarted"));
        faults.push(harmless(load.now()));
        stage.world.etcd.restart(node).await?;
        load.more(CALLS).await?;
    }
    let calls = load.stop().await;
    judged(stage.judge(&calls, &faults, None).await?, "")
}
