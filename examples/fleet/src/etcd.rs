//! The directory that the gateways share: in etcd, if it is installed.

use std::env;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use anyhow::Result;
use tempfile::TempDir;
use tunnel_fleet::FleetBuilder;
use tunnel_fleet::directory::{EtcdDirectory, MemoryDirectory};
use tunnel_process::{Process, Show};

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
        let path = env::var_os("PATH").unwrap_or_default();
        let installed = env::split_paths(&path).any(|at| at.join("etcd").is_file());
        if memory || !installed {
            println!(
                "THE DIRECTORY IS IN MEMORY (apt-get install etcd-server): no other process can join this fleet"
            );
            return Ok(Self::Memory(MemoryDirectory::new()));
        }
        let (address, peers) = (free_address()?, free_address()?);
        let data = tempfile::tempdir()?;
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(data.path());
        command.args(["--log-level", "error"]);
        for (kind, address) in [("client", address), ("peer", peers)] {
            let url = format!("http://{address}");
            command.args([format!("--listen-{kind}-urls"), url.clone()]);
            match kind {
                "client" => command.args(["--advertise-client-urls", &url]),
                _ => command
                    .args(["--initial-advertise-peer-urls", &url])
                    .args(["--initial-cluster".to_owned(), format!("default={url}")]),
            };
        }
        let process = Process::start(command.stdin(Stdio::null()), Show::Nothing)?;
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
