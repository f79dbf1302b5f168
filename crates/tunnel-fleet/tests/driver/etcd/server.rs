//! Real etcd on free ports of the loopback interface.

use std::fmt::Write as _;
use std::io::{Write as _, stderr};
use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tunnel_fleet::directory::{EtcdBuilder, EtcdDirectory};
use tunnel_process::{Line, Process, Show, Signal, etcd_member, find_program};

/// The time limit for a start. Debian's etcd takes about 0.3 s.
const START: Duration = Duration::from_secs(60);

/// One member of a cluster, most often its only one. It is killed when dropped.
pub(crate) struct Server {
    name: String,
    peer: String,
    cluster: String,
    options: Vec<String>,
    process: Option<Process>,
    data: TempDir,
    scheme: &'static str,
    port: u16,
}

/// Whether etcd is installed. If not, says so, and fails in CI.
fn is_installed() -> bool {
    if find_program("etcd").is_some() && find_program("etcdctl").is_some() {
        return true;
    }
    let advice = "apt-get install etcd-server etcd-client";
    assert!(
        std::env::var_os("CI").is_none_or(|value| value.is_empty()),
        "etcd is not installed, and with CI set nothing is skipped: {advice}"
    );
    // Not with `eprintln!`, whose lines are shown for tests that fail alone.
    let _ = writeln!(stderr(), "SKIPPED a test with etcd: {advice}");
    false
}

/// A port that is free, below those that the system gives to clients: a server that was stopped finds it free again.
/// Each is returned once, since a server takes a moment to bind it.
fn free_port() -> u16 {
    const PORTS: Range<u16> = 12_000..32_000;
    static FIRST: LazyLock<u16> = LazyLock::new(|| fastrand::u16(..PORTS.end - PORTS.start));
    static USED: AtomicU16 = AtomicU16::new(0);
    loop {
        let next = FIRST.wrapping_add(USED.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + next % (PORTS.end - PORTS.start);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Server {
    /// Starts etcd with these options beside its addresses. `None`: it is not installed.
    pub(crate) fn start(options: &[&str]) -> Option<Self> {
        Self::start_with("http", options)
    }

    /// The same with TLS for clients, whose options are given.
    pub(crate) fn start_with(scheme: &'static str, options: &[&str]) -> Option<Self> {
        Self::start_all(1, scheme, options)?.pop()
    }

    /// Starts a cluster of three.
    pub(crate) fn cluster() -> Option<Vec<Self>> {
        Self::start_all(3, "http", &[])
    }

    fn start_all(count: usize, scheme: &'static str, options: &[&str]) -> Option<Vec<Self>> {
        loop {
            let mut servers = Self::prepare(count, scheme, options)?;
            servers.iter_mut().for_each(Self::spawn);
            match servers.iter_mut().try_for_each(Self::serves) {
                Ok(()) => return Some(servers),
                // Another program was faster.
                Err(error) if error.to_string().contains("address already in use") => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn prepare(count: usize, scheme: &'static str, options: &[&str]) -> Option<Vec<Self>> {
        if !is_installed() {
            return None;
        }
        let peers: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let mut cluster = String::new();
        for (number, port) in peers.iter().enumerate() {
            let _ = write!(cluster, "member-{number}=http://127.0.0.1:{port},");
        }
        let server = |(number, peer): (usize, &u16)| Self {
            name: format!("member-{number}"),
            peer: format!("http://127.0.0.1:{peer}"),
            cluster: cluster.trim_end_matches(',').to_owned(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            process: None,
            data: tempfile::tempdir().expect("a directory"),
            scheme,
            port: free_port(),
        };
        Some(peers.iter().enumerate().map(server).collect())
    }

    /// Starts it, again with the same data, and waits until it serves.
    pub(crate) fn run(&mut self) {
        self.spawn();
        self.serves().expect("etcd serves");
    }

    /// Starts it. A member of a cluster serves only when most of them run.
    pub(crate) fn spawn(&mut self) {
        let program = find_program("etcd").expect("it is installed");
        let (data, url) = (self.data(), self.url());
        let mut command = etcd_member(&program, &self.name, &data, &url, &self.peer, &self.cluster);
        command.args(&self.options);
        self.process = Some(Process::start(&mut command, Show::Nothing).expect("etcd starts"));
    }

    /// Waits until it serves.
    fn serves(&mut self) -> anyhow::Result<()> {
        let ready = "ready to serve client requests";
        let serves = |line: &Line| line.text.contains(ready).then_some(());
        let process = self.process.as_mut().expect("it was started");
        process.wait_for(ready, START, serves)
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Kills it and removes its data.
    pub(crate) fn wipe(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.data()).expect("the data is removed");
    }

    fn data(&self) -> PathBuf {
        self.data.path().join("etcd")
    }

    /// Freezes it: its connections stay open.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::Stop);
    }

    /// Ends a freeze.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::Continue);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it runs");
        process.signal(signal).expect("it can be signalled");
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    pub(crate) fn builder(&self) -> EtcdBuilder {
        EtcdDirectory::builder([self.url()])
    }

    pub(crate) fn directory(&self) -> EtcdDirectory {
        self.builder().build().expect("the settings are valid")
    }

    /// Runs etcdctl, and returns what it prints.
    pub(crate) fn control(&self, arguments: &[&str]) -> String {
        let output = self.try_control(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "etcdctl {arguments:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs etcdctl, which may fail.
    pub(crate) fn try_control(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(find_program("etcdctl").expect("it is installed"));
        command.env("ETCDCTL_API", "3").stdin(Stdio::null());
        command.arg(format!("--endpoints={}", self.url()));
        command.args(arguments).output().expect("etcdctl runs")
    }

    /// Forgets all revisions before the present one.
    pub(crate) fn compact(&self, revision: u64) {
        self.control(&["compaction", &revision.to_string()]);
    }
}
