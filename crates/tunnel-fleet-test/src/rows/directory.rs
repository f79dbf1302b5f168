//! Faults of etcd: no call may fail that needs no new device.

use anyhow::{Result, ensure};
use tokio::time::sleep;

use super::{CALLS, Outcome, Stage, harmless, judged};
use crate::devices::key;
use crate::etcd::NODES;
use crate::fleet::FIRST;
use crate::load::{Load, reach};

/// How long all of etcd is down.
const DOWN: u64 = 60;

/// How long two nodes of etcd are down.
const MINORITY: u64 = 15;

/// The first device that comes while etcd is down. It has a tunnel to one gateway, as all of them.
const NEW: usize = 20_000;

/// All of etcd is down. A new device is reached at its own gateway, and from elsewhere because gateways ask each
/// other.
pub(super) async fn down(stage: &mut Stage<'_>) -> Result<Outcome> {
    without(stage, DOWN, &[0, 1, 2]).await
}

pub(super) async fn minority(stage: &mut Stage<'_>) -> Result<Outcome> {
    without(stage, MINORITY, &[0, 1]).await
}

async fn without(stage: &mut Stage<'_>, seconds: u64, nodes: &[usize]) -> Result<Outcome> {
    let time = stage.seconds(seconds);
    let new = NEW + nodes.len();
    let (fleet, etcd) = (&mut stage.world.fleet, &mut stage.world.etcd);
    let load = Load::start(&fleet.plan(fleet.keys()))?;
    load.more(CALLS).await?;
    let fault = harmless(load.now());
    for node in nodes {
        etcd.kill(*node)?;
    }
    stage.progress.at(format!("etcd is down for {time:?}"));
    sleep(time).await;
    stage.progress.at("a new device comes");
    let agents = fleet.agents(0);
    fleet.host(new).connect(&key(new), FIRST, &[agents]).await?;
    let mut reached = Vec::new();
    for (number, gateway) in fleet.gateways.iter().enumerate() {
        reached.extend(reach(gateway.clients, &[new]).await?);
        ensure!(
            gateway.is_ready().await,
            "gateway {number} is not ready without etcd, and nobody would be called"
        );
    }
    let failed = reached.iter().filter(|call| call.outcome.is_err()).count();
    stage.progress.at("etcd comes back");
    etcd.heal().await?;
    for gateway in &fleet.gateways {
        reached.extend(reach(gateway.clients, &[new]).await?);
    }
    load.more(CALLS).await?;
    let calls = load.stop().await;
    fleet.host(new).stop(&key(new), FIRST).await?;
    stage.world.served.made(&reached);
    let judgement = stage.judge(&calls, &[fault], None).await?;
    judged(
        judgement,
        format!(
            "down for {time:?}; a new device was reached everywhere, after {failed} failed calls"
        ),
    )
}

pub(super) async fn leader(stage: &mut Stage<'_>) -> Result<Outcome> {
    let (fleet, etcd) = (&stage.world.fleet, &mut stage.world.etcd);
    let load = Load::start(&fleet.plan(fleet.keys()))?;
    load.more(CALLS).await?;
    let leader = etcd.leader().await?;
    let fault = harmless(load.now());
    etcd.kill(leader)?;
    stage.progress.at("the leader is dead");
    let next = loop {
        match etcd.leader().await {
            Ok(next) => break next,
            Err(error) if load.now() > fault.at + crate::program::READY => return Err(error),
            Err(_) => sleep(crate::program::LOOK).await,
        }
    };
    let words = format!("another leader after {:.1?}", load.now() - fault.at);
    ensure!(next < NODES && next != leader, "the dead node leads");
    load.more(CALLS).await?;
    etcd.heal().await?;
    load.more(CALLS).await?;
    let calls = load.stop().await;
    judged(stage.judge(&calls, &[fault], None).await?, words)
}
