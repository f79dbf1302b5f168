//! What systemd is told, over a socket as systemd makes it.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use tunnel_process::{Process, Show, Signal};

use crate::calls::server;
use crate::programs::{Gateway, TIMEOUT, terminate, tunnel};

/// The socket of a service manager, and what it has heard.
struct Manager {
    directory: tempfile::TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = UnixDatagram::bind(directory.path().join("notify")).expect("a socket");
        socket.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        Self { directory, socket }
    }

    fn start(&self, arguments: &[&str]) -> Process {
        let mut command = tunnel(arguments);
        command
            .env("NOTIFY_SOCKET", self.path())
            .env("WATCHDOG_USEC", "400000");
        Process::start(&mut command, Show::Nothing).expect("it starts")
    }

    fn path(&self) -> std::path::PathBuf {
        Path::new(self.directory.path()).join("notify")
    }

    /// The next message.
    fn next(&self) -> Option<String> {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..length]).into_owned())
    }

    /// Waits for a message with this line, and returns the messages until then.
    fn wait_for(&self, line: &str) -> Vec<String> {
        let mut heard = Vec::new();
        let end = Instant::now() + TIMEOUT;
        while Instant::now() < end {
            let message = self.next().expect("a message in time");
            let found = message.lines().any(|l| l == line);
            heard.push(message);
            if found {
                return heard;
            }
        }
        panic!("no {line:?} in {heard:?}");
    }
}

const AT_FREE_PORTS: [&str; 9] = [
    "gateway",
    "--agents-listen",
    "127.0.0.1:0",
    "--clients-listen",
    "127.0.0.1:0",
    "--admin-listen",
    "127.0.0.1:0",
    "--http-listen",
    "127.0.0.1:0",
];

#[test]
fn a_gateway_is_ready_reports_progress_and_stops() {
    let manager = Manager::new();
    let mut gateway = manager.start(&AT_FREE_PORTS);
    manager.wait_for("READY=1");
    gateway.signal(Signal::Hangup).expect("it runs");
    let last = gateway.wait_for("its last listener", TIMEOUT, |line| {
        line.text
            .strip_prefix("http: listening at ")
            .map(str::to_owned)
    });
    let address = last.expect("it listens");
    for page in [&["healthy"][..], &["healthy", "--ready"]] {
        let asked = tunnel(&[page, &["--http", &address]].concat()).output();
        assert!(asked.expect("it starts").status.success(), "{page:?}");
    }
    let start = Instant::now();
    for _ in 0..4 {
        manager.wait_for("WATCHDOG=1");
    }
    // Each comes after half of the interval.
    assert!(start.elapsed() >= Duration::from_millis(400));
    terminate(&mut gateway);
    manager.wait_for("STOPPING=1");
    let asked = tunnel(&["healthy", "--http", &address]).output();
    assert!(!asked.expect("it starts").status.success());
}

#[test]
fn a_frozen_gateway_reports_nothing() {
    let manager = Manager::new();
    let mut gateway = manager.start(&AT_FREE_PORTS);
    manager.wait_for("READY=1");
    gateway.signal(Signal::Stop).expect("it runs");
    manager
        .socket
        .set_read_timeout(Some(Duration::from_millis(800)))
        .expect("a timeout");
    // At most what was on its way.
    let late = std::iter::from_fn(|| manager.next()).count();
    assert!(late <= 2, "{late} messages");
    gateway.signal(Signal::Continue).expect("it runs");
    manager.wait_for("WATCHDOG=1");
    terminate(&mut gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_ready_when_it_has_a_tunnel() {
    let (server, _reporter) = server().await;
    let mut gateway = Gateway::start(&[]).await;
    let address = gateway.agents.to_string();
    let to = server.address().to_string();
    let manager = Manager::new();
    let mut agent = manager.start(&[
        "agent",
        "--gateway",
        &address,
        "--key",
        "device",
        "--to",
        &to,
    ]);
    let heard = manager.wait_for("READY=1");
    let status = format!("STATUS=connected to {address}");
    assert!(
        heard.last().is_some_and(|last| last.contains(&status)),
        "{heard:?}"
    );
    manager.wait_for("WATCHDOG=1");
    agent.signal(Signal::Hangup).expect("it runs");
    gateway.process.kill().expect("it ends");
    manager.wait_for("STATUS=no tunnel: connecting");
    terminate(&mut agent);
    manager.wait_for("STOPPING=1");
}
