//! What all rows share: etcd, the fleet, and the books.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::etcd::{Etcd, NODES};
use crate::fleet::{Fleet, Setup};
use crate::history::{Call, Served};

/// The gateways of the fleet.
const GATEWAYS: usize = 3;

/// The gateways that each device has a tunnel to.
const TUNNELS: usize = 2;

/// The programs, the logs and the size of a run.
pub(crate) struct Settings {
    /// The program `tunnel`.
    pub(crate) tunnel: PathBuf,
    /// Another version of it.
    pub(crate) old: Option<PathBuf>,
    /// The directory for logs and data.
    pub(crate) directory: PathBuf,
    pub(crate) devices: usize,
    /// How long long faults last, if not as long as they should.
    pub(crate) seconds: Option<u64>,
}

/// The processes that run, and what was counted.
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) etcd: Etcd,
    pub(crate) fleet: Fleet,
    pub(crate) served: Served,
}

impl World {
    pub(crate) async fn start(settings: Settings) -> Result<Self> {
        let etcd = Etcd::start(&settings.directory, NODES).await?;
        let mut served = Served::default();
        let programs = vec![settings.tunnel.clone(); GATEWAYS];
        let setup = Setup {
            name: "main",
            programs: &programs,
            exclusive: "no",
            etcd: &etcd.addresses(),
            logs: &settings.directory,
            devices: settings.devices,
            tunnels: TUNNELS,
        };
        let fleet = Fleet::start(&setup, &mut served).await?;
        Ok(Self {
            settings,
            etcd,
            fleet,
            served,
        })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.settings.directory
    }

    /// Ends all faults, and waits until the fleet is whole.
    pub(crate) async fn settle(&mut self) -> Result<()> {
        self.etcd.heal().await?;
        self.fleet.settle(&mut self.served).await?;
        self.fleet.book(&[], &mut self.served).await
    }

    /// Notes the calls of a row. Returns what is wrong with how often they were served.
    pub(crate) async fn book(&mut self, calls: &[Call]) -> Result<Vec<String>> {
        let before = self.served.problems();
        self.fleet.book(calls, &mut self.served).await?;
        let mut problems = self.served.problems();
        problems.retain(|problem| !before.contains(problem));
        Ok(problems)
    }

    /// Writes what the programs have said into their logs.
    pub(crate) fn note(&mut self) {
        self.etcd.note();
        self.fleet.note();
    }
}
