//! Exclusive keys: a device takes a key from another one, and nobody takes it back within a minute.

use std::time::Duration;

use anyhow::Result;

use super::{CALLS, CALLS_FILE, Outcome, Stage, judged, write};
use crate::devices::key;
use crate::fleet::{FIRST, Fleet, Setup};
use crate::history::{Allowed, Call, Fault, judge, staleness};
use crate::load::{Load, reach};

/// The devices that lose their keys to others.
const TAKEN: std::ops::Range<usize> = 0..10;

/// The devices that open another tunnel elsewhere, with the same session.
const MOVED: std::ops::Range<usize> = 30_000..30_005;

/// How long a gateway may take to hear that a key has another owner.
const HEARD: Duration = Duration::from_secs(1);

pub(super) async fn takeover(stage: &mut Stage<'_>) -> Result<Outcome> {
    let world = &mut *stage.world;
    let setup = Setup {
        name: "exclusive",
        programs: &vec![world.settings.tunnel.clone(); 3],
        exclusive: "yes",
        etcd: &world.etcd.addresses(),
        logs: &world.settings.directory,
        devices: TAKEN.end,
        tunnels: 1,
    };
    let mut fleet = Fleet::start(&setup, &mut world.served).await?;
    for device in MOVED {
        let home = fleet.agents(device);
        fleet.host(device).once(&key(device), FIRST, home).await?;
    }
    let moved: Vec<_> = MOVED.collect();
    for gateway in &fleet.gateways {
        world.served.made(&reach(gateway.clients, &moved).await?);
    }
    let load = Load::start(&fleet.plan(fleet.keys().chain(MOVED)))?;
    load.more(CALLS).await?;
    let mut faults = Vec::new();
    let mut take = |at, allowed| {
        faults.push(Fault {
            at,
            until: at,
            gateway: None,
            allowed,
        });
    };
    for device in TAKEN {
        stage.progress.at(format!("{} is taken", key(device)));
        let other = [fleet.agents(device + 1)];
        take(load.now(), Allowed::InFlightAndOneMore);
        fleet
            .host(device + 1)
            .connect(&key(device), FIRST + 1, &other)
            .await?;
        load.more(CALLS / 10).await?;
    }
    for device in MOVED {
        stage.progress.at(format!("{} moves", key(device)));
        let other = fleet.agents(device + 1);
        take(load.now(), Allowed::Nothing);
        // The fleet drains the tunnel that it had.
        fleet.host(device).once(&key(device), FIRST, other).await?;
        load.more(CALLS / 10).await?;
    }
    stage.progress.at("the keys are wanted again");
    for device in TAKEN {
        let third = [fleet.agents(device + 2)];
        let host = fleet.host(device);
        host.begin(&key(device), FIRST + 2, &third).await?;
    }
    load.more(2 * CALLS).await?;
    let calls = load.stop().await;
    write(&world.directory().join(CALLS_FILE), &calls, &faults);
    let mut judgement = judge(&calls, &faults, None);
    let (mut stale, mut longest) = (0, Duration::ZERO);
    for device in TAKEN {
        let of_key: Vec<Call> = calls
            .iter()
            .filter(|call| call.key == device)
            .cloned()
            .collect();
        let owners = staleness(&of_key);
        stale += owners.stale;
        longest = longest.max(owners.longest);
        let third = (FIRST + 2).to_string();
        let wins = of_key
            .iter()
            .any(|call| call.outcome.as_ref() == Ok(&third));
        if owners.owners != 2 || wins {
            let problem = format!(
                "{} was answered by {} devices, not 2",
                key(device),
                owners.owners
            );
            judgement.problems.push(problem);
        }
    }
    if longest > HEARD {
        let problem = format!("a device answered {longest:.2?} after it had lost its key");
        judgement.problems.push(problem);
    }
    let before = world.served.problems();
    fleet.book(&calls, &mut world.served).await?;
    let problems = world.served.problems().into_iter();
    let new = problems.filter(|problem| !before.contains(problem));
    judgement.problems.extend(new);
    fleet.note();
    let words = format!("{stale} answers by the device before, at most {longest:.1?} late");
    judged(judgement, words)
}
