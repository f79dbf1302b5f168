//! Fleets of gateways, which share an etcd.
//!
//! Tests with a fleet need etcd. Without it they print a note and test nothing. If the environment variable CI is set,
//! they fail.

use std::io::{Write as _, stderr};
use std::net::TcpStream;

use tempfile::TempDir;
use tunnel_process::{Process, Show, etcd_member, find_program};

use crate::programs::{Gateway, TIMEOUT, free_port};

/// An etcd of one member. It ends when it is dropped.
pub(crate) struct Etcd {
    url: String,
    _process: Process,
    _directory: TempDir,
}

impl Etcd {
    /// Starts an etcd, if there is one.
    pub(crate) async fn start() -> Option<Self> {
        let Some(program) = find_program("etcd") else {
            let advice = "apt-get install etcd-server";
            assert!(
                std::env::var_os("CI").is_none_or(|value| value.is_empty()),
                "there is no etcd, and with CI set nothing is skipped: {advice}"
            );
            // Not with `eprintln!`, whose lines are shown for tests that fail alone.
            let _ = writeln!(stderr(), "SKIPPED a test of a fleet: {advice}");
            return None;
        };
        let directory = tempfile::tempdir().expect("a directory");
        let (clients, peers) = (free_port(), free_port());
        let (url, peer) = (format!("http://{clients}"), format!("http://{peers}"));
        let cluster = format!("default={peer}");
        let data = directory.path();
        let mut command = etcd_member(&program, "default", data, &url, &peer, &cluster);
        // Nothing is to be kept.
        command.arg("--unsafe-no-fsync");
        let process = Process::start(&mut command, Show::Nothing).expect("it starts");
        let listens = async {
            while TcpStream::connect(clients).is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let listens = tokio::time::timeout(TIMEOUT, listens).await;
        listens.expect("etcd listens in time");
        Some(Self {
            url,
            _process: process,
            _directory: directory,
        })
    }

    /// Starts a gateway with a name in the fleet.
    pub(crate) async fn gateway(&self, name: &str) -> Gateway {
        self.gateway_with(name, &[]).await
    }

    /// Starts a gateway with a name and further settings.
    pub(crate) async fn gateway_with(&self, name: &str, arguments: &[&str]) -> Gateway {
        let hops = "127.0.0.1:0";
        let in_fleet = ["--etcd", &self.url, "--name", name, "--hop-listen", hops];
        Gateway::start(&[&in_fleet[..], &["--zone", ""], arguments].concat()).await
    }
}
