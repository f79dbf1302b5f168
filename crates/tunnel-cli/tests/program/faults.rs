//! Agent, gateway and server are killed, frozen and restarted, in any order, under calls.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Server};
use tonic::{Code, Status};
use tunnel_process::{Process, Show, Signal};

use crate::calls::Caller;
use crate::programs::{Gateway, TIMEOUT, free_port, plaintext, terminate, tunnel};

/// A caller that goes on through everything.
struct Patient {
    channel: Channel,
}

impl Patient {
    /// Calls until one succeeds. Each failure says that somebody was away, and nothing else.
    async fn until_ok(&self) {
        let calls = async {
            loop {
                match Caller::of("device").check(&self.channel).await {
                    Ok(()) => return,
                    Err(status) => away(&status),
                }
            }
        };
        tokio::time::timeout(TIMEOUT, calls)
            .await
            .expect("the device is back");
    }

    /// Calls until one fails.
    async fn until_away(&self) {
        let calls = async {
            loop {
                if let Err(status) = Caller::of("device").check(&self.channel).await {
                    return away(&status);
                }
            }
        };
        tokio::time::timeout(TIMEOUT, calls)
            .await
            .expect("somebody is away");
    }
}

/// A server on a runtime of its own, whose end closes all connections.
struct LocalServer(Runtime);

impl LocalServer {
    fn start(address: SocketAddr) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = runtime.expect("threads");
        let (_reporter, health) = tonic_health::server::health_reporter();
        runtime.spawn(Server::builder().add_service(health).serve(address));
        Self(runtime)
    }

    fn kill(self) {
        self.0.shutdown_background();
    }
}

fn away(status: &Status) {
    // tonic's client has this for a connection that breaks, here that to the gateway.
    let broken = status.code() == Code::Unknown && status.message() == "transport error";
    assert!(broken || status.code() == Code::Unavailable, "{status:?}");
}

#[tokio::test]
async fn calls_go_on_after_any_of_the_three_was_killed_and_started_again() {
    let (agents, clients, local) = (free_port(), free_port(), free_port());
    let start_gateway =
        async || Gateway::start_at(&agents.to_string(), &clients.to_string(), &[]).await;
    let start_agent = || {
        let arguments = [
            "agent",
            "--gateway",
            &agents.to_string(),
            "--key",
            "device",
            "--to",
            &local.to_string(),
        ];
        Process::start(&mut tunnel(&arguments), Show::Nothing).expect("it starts")
    };
    let start_server = || LocalServer::start(local);
    // In the order that is the least likely to work: the agent is alone at first.
    let mut agent = start_agent();
    let mut server = start_server();
    let mut gateway = start_gateway().await;
    let caller = Patient {
        channel: plaintext(clients).connect_lazy(),
    };
    caller.until_ok().await;

    server.kill();
    caller.until_away().await;
    server = start_server();
    caller.until_ok().await;

    agent.kill().expect("it dies");
    caller.until_away().await;
    agent = start_agent();
    caller.until_ok().await;

    gateway.process.kill().expect("it dies");
    caller.until_away().await;
    gateway = start_gateway().await;
    caller.until_ok().await;

    // All at once.
    server.kill();
    agent.kill().expect("it dies");
    gateway.process.kill().expect("it dies");
    gateway = start_gateway().await;
    let last_server = start_server();
    agent = start_agent();
    caller.until_ok().await;

    terminate(&mut agent);
    terminate(&mut gateway.process);
    last_server.kill();
}

#[tokio::test]
async fn a_frozen_agent_is_noticed_and_comes_back_when_it_thaws() {
    let (server, _reporter) = crate::calls::server().await;
    let gateway = Gateway::start(&[]).await;
    let agent = gateway.agent("device", &server.address().to_string()).await;
    let caller = Patient {
        channel: gateway.channel(),
    };
    let stream = Caller::of("device")
        .watch(&caller.channel)
        .await
        .expect("it is connected");
    agent.signal(Signal::Stop).expect("it runs");
    gateway
        .wait_for(
            "device",
            tonic_health::pb::health_check_response::ServingStatus::NotServing,
        )
        .await;
    let mut stream = stream;
    let ended = tokio::time::timeout(TIMEOUT, stream.message())
        .await
        .expect("the call ends");
    away(&ended.expect_err("the tunnel is lost"));
    agent.signal(Signal::Continue).expect("it runs");
    caller.until_ok().await;
}

#[tokio::test]
async fn after_a_freeze_of_the_gateway_everything_goes_on() {
    let (server, _reporter) = crate::calls::server().await;
    let gateway = Gateway::start(&[]).await;
    let _agent = gateway.agent("device", &server.address().to_string()).await;
    let caller = Patient {
        channel: gateway.channel(),
    };
    caller.until_ok().await;
    gateway.process.signal(Signal::Stop).expect("it runs");
    let frozen = Caller::of("device");
    let call = frozen.check(&caller.channel);
    // It has no answer as long as the gateway is frozen.
    let call = std::pin::pin!(call);
    let waited = tokio::time::timeout(Duration::from_millis(100), call).await;
    assert!(waited.is_err(), "{waited:?}");
    gateway.process.signal(Signal::Continue).expect("it runs");
    caller.until_ok().await;
}
