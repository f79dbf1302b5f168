//! Gateways and agents as processes, and what stands beside them.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tunnel_process::{Process, Show, Signal};

/// How long a program may take to say or do something. Far more than it needs.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// What stands behind the key in an authority.
pub(crate) const SUFFIX: &str = "tunnels.example";

/// The program with arguments. It sees no settings of the environment.
pub(crate) fn tunnel(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tunnel"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TUNNEL_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs the program to its end; returns its exit code, its output and its errors.
pub(crate) async fn run(arguments: &[&str]) -> (i32, String, String) {
    let mut command = tunnel(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output.expect("no panic").expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let code = output.status.code().expect("no signal");
    (code, text(output.stdout), text(output.stderr))
}

/// A running gateway.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    pub(crate) agents: SocketAddr,
    pub(crate) clients: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) http: SocketAddr,
}

impl Gateway {
    /// Starts a gateway at free ports.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        let any = "127.0.0.1:0";
        Self::start_at(any, any, arguments).await
    }

    /// Starts a gateway whose agents and clients dial these addresses.
    pub(crate) async fn start_at(agents: &str, clients: &str, arguments: &[&str]) -> Self {
        let mut command = tunnel(&["gateway", "--authority-suffix", SUFFIX]);
        command.args(["--agents-listen", agents, "--clients-listen", clients]);
        command.args([
            "--admin-listen",
            "127.0.0.1:0",
            "--http-listen",
            "127.0.0.1:0",
        ]);
        let mut process =
            Process::start(command.args(arguments), Show::Nothing).expect("it starts");
        let mut listens = async |name: &str| {
            let prefix = format!("{name}: listening at ");
            let address = process.next_stdout_after(&prefix).await;
            address.expect("it listens").parse().expect("an address")
        };
        let agents = listens("agents").await;
        let clients = listens("clients").await;
        let admin = listens("admin").await;
        if arguments.contains(&"--etcd") {
            listens("hop").await;
        }
        let http = listens("http").await;
        Self {
            process,
            agents,
            clients,
            admin,
            http,
        }
    }

    /// A connection without a key.
    pub(crate) fn channel(&self) -> Channel {
        plaintext(self.clients).connect_lazy()
    }

    /// A connection that names a key by its authority.
    pub(crate) fn channel_of(&self, key: &str) -> Channel {
        let origin = format!("http://{key}.{SUFFIX}")
            .parse()
            .expect("an authority");
        plaintext(self.clients).origin(origin).connect_lazy()
    }

    /// Waits until a device has this status.
    pub(crate) async fn wait_for(&self, key: &str, status: ServingStatus) {
        wait_for(self.channel(), key, status).await;
    }

    /// Starts an agent of a local server, and waits until it is connected.
    pub(crate) async fn agent(&self, key: &str, to: &str) -> Process {
        let gateway = self.agents.to_string();
        let mut command = tunnel(&["agent", "--gateway", &gateway, "--key", key, "--to", to]);
        let agent = Process::start(&mut command, Show::Nothing).expect("it starts");
        self.wait_for(key, ServingStatus::Serving).await;
        agent
    }
}

/// Waits until a device has this status at a gateway.
pub(crate) async fn wait_for(channel: Channel, key: &str, status: ServingStatus) {
    let request = HealthCheckRequest {
        service: format!("tunnel.device/{key}"),
    };
    let waited = tokio::time::timeout(TIMEOUT, async {
        let watched = HealthClient::new(channel).watch(request).await;
        let mut statuses = watched.expect("it may be watched").into_inner();
        while let Some(now) = statuses.message().await.expect("the gateway runs") {
            if now.status() == status {
                return;
            }
        }
        panic!("the watch has ended");
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("{key} is not {status:?}"));
}

/// An endpoint without TLS.
pub(crate) fn plaintext(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}")).expect("an address")
}

/// Ends a program as a supervisor does, and expects it to end well.
pub(crate) fn terminate(process: &mut Process) {
    let status = process.stop(Signal::Terminate, TIMEOUT).expect("it ends");
    assert!(status.success(), "{status}: {}", process.last_words());
}

/// A free port of the loopback interface.
pub(crate) fn free_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}
