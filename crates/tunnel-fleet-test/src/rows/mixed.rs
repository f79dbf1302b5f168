//! Gateways and agents of two versions of the program in one fleet.

use std::process::Command;

use anyhow::Result;
use example_support::serve::on_loopback;
use example_support::test::echo_service_server::EchoServiceServer;
use tonic::transport::Server;

use super::{CALLS, Outcome, Stage, harmless, judged};
use crate::devices::key;
use crate::fleet::{FIRST, Fleet, Setup};
use crate::history::judge;
use crate::load::{Load, reach};
use crate::program::Program;
use crate::service::{Log, Service};

/// The devices, each of an agent with a server of its own.
const DEVICES: usize = 8;

/// Calls through gateways and agents of both versions, while each gateway is restarted.
pub(super) async fn versions(stage: &mut Stage<'_>) -> Result<Outcome> {
    let world = &mut *stage.world;
    let Some(old) = world.settings.old.clone() else {
        return Ok(Outcome::Skipped("needs --old PROGRAM".into()));
    };
    let both = [world.settings.tunnel.clone(), old];
    let setup = Setup {
        name: "mixed",
        programs: &[&both[..], &both[..]].concat(),
        exclusive: "no",
        etcd: &world.etcd.addresses(),
        logs: &world.settings.directory,
        devices: 0,
        tunnels: 0,
    };
    let mut fleet = Fleet::start(&setup, &mut world.served).await?;
    let log = Log::default();
    let mut agents = Vec::new();
    for device in 0..DEVICES {
        let service = Service {
            key: key(device),
            session: FIRST.to_string(),
            log: log.clone(),
        };
        let server = Server::builder().add_service(EchoServiceServer::new(service));
        let address = on_loopback(server).await?;
        let mut command = Command::new(&both[device / 2 % 2]);
        command.args(["agent", "--key", &key(device), "--to", &address.to_string()]);
        for gateway in [device, device + 1] {
            command.args(["--gateway", &fleet.agents(gateway).to_string()]);
        }
        let mut agent = Program::new(&format!("mixed-agent-{device}"), &world.settings.directory);
        agent.start(&mut command)?;
        agents.push(agent);
    }
    let keys: Vec<_> = (0..DEVICES).collect();
    for gateway in &fleet.gateways {
        world.served.made(&reach(gateway.clients, &keys).await?);
    }
    let load = Load::start(&fleet.plan(keys.clone()))?;
    load.more(CALLS).await?;
    let mut faults = Vec::new();
    for node in 0..crate::etcd::NODES {
        stage.progress.at("etcd is restarted");
        faults.push(harmless(load.now()));
        world.etcd.restart(node).await?;
    }
    load.more(CALLS).await?;
    let calls = load.stop().await;
    let mut judgement = judge(&calls, &faults, None);
    let before = world.served.problems();
    fleet.book(&calls, &mut world.served).await?;
    world.served.served(log.take());
    let problems = world.served.problems().into_iter();
    let new = problems.filter(|problem| !before.contains(problem));
    judgement.problems.extend(new);
    // Both versions stop as they should, and the devices stay reachable.
    for number in 0..fleet.gateways.len() {
        stage.progress.at(format!("gateway {number} is restarted"));
        fleet.gateways[number].stop().await?;
        fleet.gateways[number].begin().await?;
        for gateway in &fleet.gateways {
            world.served.made(&reach(gateway.clients, &keys).await?);
        }
    }
    world.served.served(log.take());
    fleet.note();
    judged(judgement, format!("{DEVICES} agents at 4 gateways"))
}
