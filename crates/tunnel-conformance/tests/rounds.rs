//! Ten thousand rounds of open, call and close, which must leave nothing behind.
//!
//! A separate program, because it counts the process's live memory and file descriptors, and the
//! runtime's tasks.

use std::alloc::System;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cap::Cap;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tunnel_client::{ForwardTunnel, ReverseTunnelServer, TunnelChannel, endpoint_for_tunnels};
use tunnel_conformance::client::run;
use tunnel_conformance::harness::guard;
use tunnel_conformance::payload::{assert_pattern, request};
use tunnel_conformance::proto::Script;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::service::scripted;
use tunnel_conformance::{Kind, Probe, TestChannel};
use tunnel_server::{AffinityKey, Opening, TunnelServiceHandler, WhenNoTunnel, server_for_tunnels};

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// Rounds of each direction.
const ROUNDS: usize = 5_000;

/// Rounds of the warm-up.
const WARM_UP: usize = 500;

/// The number of concurrent rounds.
const AT_ONCE: usize = 8;

/// The tolerated growth in bytes after all rounds, because tables keep capacity. A leak of 64
/// bytes in each round would be twice this much.
const SLACK: usize = 320 << 10;

/// The resources of the process and the runtime.
#[derive(Debug)]
struct Holdings {
    memory: usize,
    tasks: usize,
    /// `None` on systems without `/proc`.
    descriptors: Option<usize>,
}

impl Holdings {
    fn now() -> Self {
        Self {
            memory: MEMORY.allocated(),
            tasks: Handle::current().metrics().num_alive_tasks(),
            descriptors: std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count),
        }
    }
}

struct Far {
    endpoint: Endpoint,
    handler: TunnelServiceHandler,
    probe: Probe,
}

impl Far {
    async fn start() -> Self {
        let probe = Probe::default();
        let handler = TunnelServiceHandler::builder()
            .affinity_key(|opening: &Opening| opening.metadata_str("key").map(AffinityKey::from))
            .add_service(scripted(&probe))
            .build();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let routes = Routes::new(handler.service());
        let server = server_for_tunnels(Server::builder()).add_routes(routes);
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        tokio::spawn(server.serve_with_incoming(incoming));
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("valid");
        Self {
            endpoint: endpoint_for_tunnels(endpoint),
            handler,
            probe,
        }
    }

    /// One tunnel of the forward direction, from its connection to its end.
    async fn forward_round(&self, seed: u64) {
        let channel = self.endpoint.connect().await.expect("it listens");
        let tunnel = ForwardTunnel::new(channel).open().await;
        let tunnel = tunnel.expect("the tunnel is accepted");
        echo(TestChannel::new(tunnel.clone()), seed).await;
        end(&tunnel, seed).await;
    }

    /// One tunnel of the reverse direction.
    async fn reverse_round(&self, seed: u64) {
        let mut metadata = MetadataMap::new();
        let key = format!("device-{seed}");
        metadata.insert("key", key.parse().expect("a legal value"));
        let device = ReverseTunnelServer::builder(self.endpoint.clone())
            .metadata(metadata)
            .add_service(scripted(&self.probe))
            .build();
        let serving = tokio::spawn(async move { device.serve().await });
        let channel = self
            .handler
            .key_as_channel(key.as_str())
            .when_no_tunnel(WhenNoTunnel::Wait);
        echo(TestChannel::new(channel.clone()), seed).await;
        let tunnel = channel.tunnels()[0].channel().expect("a reverse tunnel");
        end(&tunnel, seed).await;
        let served = serving.await.expect("no panic");
        served.expect("the tunnel was accepted");
    }
}

async fn echo(channel: TestChannel, seed: u64) {
    let client = TestServiceClient::new(channel);
    // The probe keeps a record for each name, so all rounds share one name.
    let script = Script::named("round").echo_all();
    let outcome = run(&client, Kind::Unary, &script, vec![request(seed, 100)]).await;
    assert_pattern(&outcome.expect_success()[0].payload, seed, 100);
}

/// Ends a tunnel in one of three ways.
async fn end(tunnel: &TunnelChannel, seed: u64) {
    match seed % 3 {
        0 => tunnel.close().await,
        1 => tunnel.close_with(tonic::Status::aborted("enough")).await,
        _ => drop(tunnel.drain(std::time::Duration::from_secs(60)).await),
    }
}

/// Makes `count` rounds of each direction, [`AT_ONCE`] at a time.
async fn rounds(far: &Arc<Far>, count: usize) {
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (far, next) = (far.clone(), next.clone());
        workers.spawn(async move {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= count {
                    break;
                }
                far.forward_round(seed as u64).await;
                far.reverse_round(seed as u64).await;
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.expect("every round succeeds");
    }
}

/// Waits until connections and tasks have gone. Returns the remaining resources.
async fn settled(far: &Far, tasks: usize) -> Holdings {
    loop {
        let now = Holdings::now();
        if now.tasks <= tasks && far.handler.tunnels().is_empty() {
            return now;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_tunnels_leave_no_task_no_descriptor_and_no_memory() {
    let test = async {
        let far = Arc::new(Far::start().await);
        // One task remains, which accepts connections.
        rounds(&far, WARM_UP).await;
        let before = settled(&far, 1).await;
        rounds(&far, ROUNDS).await;
        let after = settled(&far, 1).await;
        println!("before: {before:?}\nafter:  {after:?}");
        assert_eq!(far.handler.kept_keys(), 0);
        assert_eq!(after.descriptors, before.descriptors);
        assert_eq!(after.tasks, before.tasks);
        let grown = after.memory.saturating_sub(before.memory);
        assert!(grown < SLACK, "{grown} bytes more than before");
    };
    guard("ten thousand tunnels", test).await;
}
