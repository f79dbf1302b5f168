//! A fleet: gateways, and devices with tunnels to some of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::devices::{DeviceHost, key};
use crate::forwarder::Mode;
use crate::gateway::{self, Gateway};
use crate::history::{Call, Served};
use crate::load::{DEADLINE, Plan, reach};

/// The callers of a row.
const CALLERS: usize = 24;

/// The processes that the devices are in.
const HOSTS: usize = 2;

/// The session of devices that nothing happens to.
pub(crate) const FIRST: u64 = 1;

/// What a fleet is made of.
pub(crate) struct Setup<'a> {
    pub(crate) name: &'a str,
    /// The program of each gateway.
    pub(crate) programs: &'a [PathBuf],
    pub(crate) exclusive: &'a str,
    pub(crate) etcd: &'a [SocketAddr],
    /// The directory for logs.
    pub(crate) logs: &'a Path,
    pub(crate) devices: usize,
    /// The gateways that each device has a tunnel to.
    pub(crate) tunnels: usize,
}

/// A fleet that runs.
pub(crate) struct Fleet {
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) hosts: Vec<DeviceHost>,
    devices: usize,
}

impl Fleet {
    /// Starts gateways and devices, and waits until all are reachable.
    pub(crate) async fn start(setup: &Setup<'_>, served: &mut Served) -> Result<Self> {
        let starts = setup.programs.iter().enumerate().map(|(number, program)| {
            Gateway::start(gateway::Plan {
                name: format!("g{number}"),
                fleet: setup.name,
                program,
                etcd: setup.etcd,
                exclusive: setup.exclusive,
                logs: setup.logs,
                log: "info",
                more: &[],
            })
        });
        let gateways = futures::future::try_join_all(starts).await?;
        let hosts = (0..HOSTS).map(|_| DeviceHost::start());
        let mut fleet = Self {
            gateways,
            hosts: hosts.collect::<Result<_>>()?,
            devices: setup.devices,
        };
        for device in 0..setup.devices {
            let gateways: Vec<_> = (0..setup.tunnels)
                .map(|tunnel| fleet.agents(device + tunnel))
                .collect();
            let host = fleet.host(device);
            host.begin(&key(device), FIRST, &gateways).await?;
        }
        fleet.settle(served).await?;
        Ok(fleet)
    }

    /// The process that a device is in.
    pub(crate) fn host(&mut self, device: usize) -> &mut DeviceHost {
        &mut self.hosts[device % HOSTS]
    }

    /// Where devices reach gateway N, counted around.
    pub(crate) fn agents(&self, gateway: usize) -> SocketAddr {
        self.gateways[gateway % self.gateways.len()].agents
    }

    /// Callers at all gateways, for some devices.
    pub(crate) fn plan(&self, keys: impl IntoIterator<Item = usize>) -> Plan {
        Plan {
            callers: CALLERS,
            gateways: self
                .gateways
                .iter()
                .map(|gateway| gateway.clients)
                .collect(),
            direct: true,
            keys: keys.into_iter().collect(),
            deadline: DEADLINE,
        }
    }

    /// The numbers of the devices.
    pub(crate) fn keys(&self) -> std::ops::Range<usize> {
        0..self.devices
    }

    /// Waits until all devices have all their tunnels.
    pub(crate) async fn connected(&mut self) -> Result<()> {
        for host in &mut self.hosts {
            host.settle().await?;
        }
        Ok(())
    }

    /// Ends all faults, and waits until each device is reached at each gateway.
    pub(crate) async fn settle(&mut self, served: &mut Served) -> Result<()> {
        for gateway in &mut self.gateways {
            gateway.hops().set(Mode::Pass);
            gateway.set_etcd(Mode::Pass);
            match gateway.is_running() {
                true => gateway.thaw()?,
                false => gateway.begin().await?,
            }
        }
        self.connected().await?;
        let keys: Vec<_> = self.keys().collect();
        for gateway in &self.gateways {
            served.made(&reach(gateway.clients, &keys).await?);
        }
        Ok(())
    }

    /// Notes the calls of a row, and what the devices have served.
    pub(crate) async fn book(&mut self, calls: &[Call], served: &mut Served) -> Result<()> {
        served.made(calls);
        for host in &mut self.hosts {
            let ids = host.served().await;
            served.served(ids.with_context(|| host.words())?);
        }
        Ok(())
    }

    pub(crate) fn note(&mut self) {
        for gateway in &mut self.gateways {
            gateway.note();
        }
    }
}
