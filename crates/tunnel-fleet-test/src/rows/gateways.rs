//! Faults of one gateway.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::sleep;

use super::{CALLS, Outcome, Stage, harmless, judged};
use crate::devices::key;
use crate::fleet::FIRST;
use crate::forwarder::Mode;
use crate::history::{Allowed, Fault};
use crate::load::{Load, Plan, reach};
use crate::program::until;

/// The gateway with the fault.
const FAULTY: usize = 0;

/// The median of the next calls after a gateway was killed.
const MEDIAN: Duration = Duration::from_millis(100);

/// How long a gateway is silent before the others avoid it.
const SUSPECT: Duration = Duration::from_millis(2_200);

/// The deadline of calls that may be sent to a gateway that is silent. Callers make the next call soon enough with it.
const DEADLINE: Duration = Duration::from_secs(2);

/// How long a gateway is away. Its lease of 5 s ends meanwhile.
const AWAY: u64 = 8;

/// A gateway that a peer knows to be alone without etcd turns unready after 30 s.
const UNREADY: Duration = Duration::from_secs(35);

fn fault(load: &Load, at: Duration, allowed: Allowed) -> Fault {
    Fault {
        at,
        until: load.now(),
        gateway: Some(FAULTY),
        allowed,
    }
}

/// The device of this row alone.
const NEW: usize = 10_000;

pub(super) async fn kill(stage: &mut Stage<'_>) -> Result<Outcome> {
    let away = stage.seconds(AWAY);
    let fleet = &mut stage.world.fleet;
    let load = Load::start(&fleet.plan(fleet.keys()))?;
    load.more(CALLS).await?;
    stage.progress.at("a gateway is dead");
    let at = load.now();
    fleet.gateways[FAULTY].kill()?;
    sleep(away).await;
    load.more(CALLS).await?;
    let fault = fault(&load, at, Allowed::InFlightAndOneMore);
    stage.progress.at("it comes back");
    fleet.gateways[FAULTY].begin().await?;
    fleet.connected().await?;
    load.more(CALLS).await?;
    let calls = load.stop().await;
    let judgement = stage.judge(&calls, &[fault], Some(MEDIAN)).await?;
    let words = format!("median {:.1} ms", judgement.median.as_secs_f64() * 1e3);
    judged(judgement, words)
}

pub(super) async fn freeze(stage: &mut Stage<'_>) -> Result<Outcome> {
    let away = stage.seconds(AWAY);
    let fleet = &mut stage.world.fleet;
    let load = Load::start(&Plan {
        deadline: DEADLINE,
        ..fleet.plan(fleet.keys())
    })?;
    load.more(CALLS).await?;
    stage.progress.at("a gateway is frozen");
    let at = load.now();
    fleet.gateways[FAULTY].freeze()?;
    sleep(away).await;
    let fault = fault(&load, at, Allowed::BegunWithin(SUSPECT));
    fleet.gateways[FAULTY].thaw()?;
    stage.progress.at("it goes on");
    fleet.connected().await?;
    load.more(CALLS).await?;
    let calls = load.stop().await;
    let judgement = stage.judge(&calls, &[fault], None).await?;
    judged(judgement, format!("frozen for {away:?}"))
}

pub(super) async fn cut_peers(stage: &mut Stage<'_>) -> Result<Outcome> {
    let away = stage.seconds(AWAY);
    let fleet = &mut stage.world.fleet;
    let load = Load::start(&Plan {
        deadline: DEADLINE,
        ..fleet.plan(fleet.keys())
    })?;
    load.more(CALLS).await?;
    stage.progress.at("a gateway is cut off");
    let at = load.now();
    let process = fleet.gateways[FAULTY].id().unwrap_or_default();
    fleet.gateways[FAULTY].hops().set(Mode::Silent);
    for gateway in &fleet.gateways[FAULTY + 1..] {
        gateway.hops().set_for(process, Mode::Silent);
    }
    sleep(away).await;
    let fault = fault(&load, at, Allowed::BegunWithin(SUSPECT));
    for gateway in &fleet.gateways {
        gateway.hops().set(Mode::Pass);
    }
    load.more(CALLS).await?;
    let calls = load.stop().await;
    let judgement = stage.judge(&calls, &[fault], None).await?;
    judged(judgement, format!("cut off for {away:?}"))
}

/// All connections between gateways end, and can be made again.
pub(super) async fn lose_hops(stage: &mut Stage<'_>) -> Result<Outcome> {
    let fleet = &stage.world.fleet;
    let load = Load::start(&fleet.plan(fleet.keys()))?;
    load.more(CALLS).await?;
    let mut faults = Vec::new();
    for _ in 0..3 {
        let at = load.now();
        for mode in [Mode::Cut, Mode::Pass] {
            for gateway in &fleet.gateways {
                gateway.hops().set(mode);
            }
            // Until the connections have noticed.
            load.more(20).await?;
        }
        load.more(2 * CALLS).await?;
        faults.push(Fault {
            at,
            until: at,
            gateway: None,
            allowed: Allowed::InFlightAndOneMore,
        });
    }
    let calls = load.stop().await;
    let judgement = stage.judge(&calls, &faults, None).await?;
    judged(judgement, format!("{} times", faults.len()))
}

pub(super) async fn cut_etcd(stage: &mut Stage<'_>) -> Result<Outcome> {
    let away = stage.seconds(UNREADY.as_secs());
    let fleet = &mut stage.world.fleet;
    let load = Load::start(&fleet.plan(fleet.keys()))?;
    load.more(CALLS).await?;
    stage.progress.at("a gateway is cut off");
    let fault = harmless(load.now());
    fleet.gateways[FAULTY].set_etcd(Mode::Silent);
    sleep(away.min(Duration::from_secs(AWAY))).await;
    ensure!(
        fleet.gateways[FAULTY].is_ready().await,
        "the gateway is not ready after {AWAY} s without etcd"
    );
    // A new device has only this gateway.
    let agents = fleet.agents(FAULTY);
    fleet.host(NEW).connect(&key(NEW), FIRST, &[agents]).await?;
    let mut reached = reach(fleet.gateways[FAULTY].clients, &[NEW]).await?;
    let words = match away >= UNREADY {
        true => {
            let gateway = &fleet.gateways[FAULTY];
            until(
                "the gateway without etcd says that it is not ready",
                async || Ok(!gateway.is_ready().await),
            )
            .await?;
            format!("unready after {:.0?}", load.now() - fault.at)
        }
        false => format!(
            "unready not tested: that takes --seconds {}",
            UNREADY.as_secs()
        ),
    };
    fleet.gateways[FAULTY].set_etcd(Mode::Pass);
    stage.progress.at("it joins again");
    for gateway in &fleet.gateways {
        reached.extend(reach(gateway.clients, &[NEW]).await?);
    }
    let gateway = &fleet.gateways[FAULTY];
    until("the gateway is ready", async || {
        Ok(gateway.is_ready().await)
    })
    .await?;
    load.more(CALLS).await?;
    let calls = load.stop().await;
    fleet.host(NEW).stop(&key(NEW), FIRST).await?;
    stage.world.served.made(&reached);
    judged(stage.judge(&calls, &[fault], None).await?, words)
}
