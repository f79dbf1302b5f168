//! Fleets of gateways, which share an etcd.
//!
//! Tests with a fleet need etcd. Without it they print a note and test nothing. If the environment variable CI is set,
//! they fail.

use std::io::{Write as _, stderr};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tunnel_process::{Process, Show};

use crate::programs::{Gateway, TIMEOUT};

/// An etcd of one member. It ends when it is dropped.
pub(crate) struct Etcd {
    url: String,
    _process: Process,
    _directory: TempDir,
}

fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}

fn is_installed() -> bool {
    let mut version = Command::new("etcd");
    version.arg("--version").stdin(Stdio::null());
    let version = version.stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

impl Etcd {
    /// Starts an etcd, if there is one.
    pub(crate) async fn start() -> Option<Self> {
        if !is_installed() {
            let advice = "apt-get install etcd-server";
            assert!(
                std::env::var_os("CI").is_none_or(|value| value.is_empty()),
                "there is no etcd, and with CI set nothing is skipped: {advice}"
            );
            // Not with `eprintln!`, whose lines are shown for tests that fail alone.
            let _ = writeln!(stderr(), "SKIPPED a test of a fleet: {advice}");
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let (clients, peers) = (free_port(), free_port());
        let (url, peer) = (format!("http://{clients}"), format!("http://{peers}"));
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(directory.path());
        command.args([
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
        ]);
        command.args(["--listen-peer-urls", &peer]);
        command.args(["--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        // Nothing is to be kept.
        command.arg("--unsafe-no-fsync").stdin(Stdio::null());
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
