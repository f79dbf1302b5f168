//! The directory that the gateways share: in etcd, if it is installed.

use std::net::{SocketAddr, TcpListener};

use anyhow::Result;
use tempfile::TempDir;
use tunnel_fleet::FleetBuilder;
use tunnel_fleet::directory::{EtcdDirectory, MemoryDirectory};
use tunnel_process::{Process, Show, etcd_member, find_program};

/// Where the directory is.
pub(crate) enum Engine {
    /// In a node of etcd of this program.
    Etcd {
        address: SocketAddr,
        _process: Process,
        _data: TempDir,
    },
    /// In this process.
    Memory(MemoryDirectory),
}

impl Engine {
    pub(crate) fn start(memory: bool) -> Result<Self> {
        let Some(program) = find_program("etcd").filter(|_| !memory) else {
            println!(
                "THE DIRECTORY IS IN MEMORY (apt-get install etcd-server): no other process can join this fleet"
            );
            return Ok(Self::Memory(MemoryDirectory::new()));
        };
        let (address, peers) = (free_address()?, free_address()?);
        let data = tempfile::tempdir()?;
        let url = |address| format!("http://{address}");
        let (own, peers) = (url(address), url(peers));
        let cluster = format!("default={peers}");
        let mut command = etcd_member(&program, "default", data.path(), &own, &peers, &cluster);
        let process = Process::start(command.args(["--log-level", "error"]), Show::Nothing)?;
        println!("the directory is in etcd at {address}");
        Ok(Self::Etcd {
            address,
            _process: process,
            _data: data,
        })
    }

    /// Gives the directory to a gateway. It joins as soon as the directory answers.
    pub(crate) fn give(&self, fleet: FleetBuilder) -> Result<FleetBuilder> {
        Ok(match self {
            Self::Memory(directory) => fleet.directory(directory.clone()),
            Self::Etcd { address, .. } => {
                let endpoints = [format!("http://{address}")];
                fleet.directory(EtcdDirectory::builder(endpoints).build()?)
            }
        })
    }
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
