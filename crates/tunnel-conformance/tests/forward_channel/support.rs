//! Backends behind one address, and clients of them.

use std::time::Duration;

use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::transport::Server;
use tunnel_client::{Backoff, ForwardChannel, ForwardChannelBuilder, Gateway, TunnelId};
use tunnel_conformance::client::run;
use tunnel_conformance::harness::guard;
use tunnel_conformance::payload::{assert_pattern, request};
use tunnel_conformance::proto::Script;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::service::scripted;
use tunnel_conformance::{Client, Kind, Outcome, Probe, TcpServer, TestChannel};
use tunnel_server::{TunnelServiceHandler, TunnelServiceHandlerBuilder, server_for_tunnels};

/// Runs a test, and fails it with its name if it hangs.
pub(crate) async fn guarded(test: impl Future<Output = ()>) {
    let thread = std::thread::current();
    guard(thread.name().unwrap_or("the test"), test).await;
}

/// Polls a condition that no event reports.
pub(crate) async fn eventually(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::task::yield_now().await;
    }
}

/// Longer than any test lasts.
pub(crate) const NEVER: Duration = Duration::from_secs(12 * 60 * 60);

/// A server with the scripted service, through tunnels and without.
pub(crate) struct Backend {
    pub(crate) handler: TunnelServiceHandler,
    pub(crate) server: TcpServer,
}

impl Backend {
    pub(crate) async fn start(probe: &Probe) -> Self {
        Self::start_with(probe, |builder| builder).await
    }

    pub(crate) async fn start_with(
        probe: &Probe,
        settings: impl FnOnce(TunnelServiceHandlerBuilder) -> TunnelServiceHandlerBuilder,
    ) -> Self {
        let builder = TunnelServiceHandler::builder().add_service(scripted(probe));
        let handler = settings(builder).build();
        let routes = Routes::new(handler.service()).add_service(scripted(probe));
        let server = TcpServer::start(server_for_tunnels(Server::builder()), routes).await;
        Self { handler, server }
    }

    /// Waits until exactly this many tunnels are open.
    pub(crate) async fn has(&self, count: usize) {
        eventually(|| self.handler.tunnels().len() == count).await;
    }
}

/// A channel without backoff, before it has connected.
pub(crate) fn channel(gateway: impl Into<Gateway>) -> ForwardChannelBuilder {
    let backoff = Backoff::default()
        .initial(Duration::from_millis(2))
        .cap(Duration::from_millis(5))
        .healthy_after(Duration::ZERO);
    ForwardChannel::builder(gateway).backoff(backoff)
}

pub(crate) fn client(channel: &ForwardChannel) -> Client {
    TestServiceClient::new(TestChannel::new(channel.clone()))
}

/// The result of a short call.
pub(crate) async fn short_call(client: &Client) -> Outcome {
    let script = Script::named("short").echo_all();
    run(client, Kind::Unary, &script, vec![request(7, 1000)]).await
}

/// Checks that a call succeeds.
pub(crate) async fn assert_usable(client: &Client) {
    let outcome = short_call(client).await;
    assert_pattern(&outcome.expect_success()[0].payload, 7, 1000);
}

/// The one tunnel that takes calls.
pub(crate) fn tunnel_of(channel: &ForwardChannel) -> Option<TunnelId> {
    match &channel.tunnels()[..] {
        [tunnel] => Some(tunnel.id()),
        _ => None,
    }
}

/// A call that stays until its gate opens.
pub(crate) struct LongCall {
    probe: Probe,
    gate: String,
    call: JoinHandle<Outcome>,
}

impl LongCall {
    /// Begins one, and waits until it has arrived.
    pub(crate) async fn begin(client: &Client, probe: &Probe, name: &str) -> Self {
        let script = Script::named(name).wait(name).echo_all();
        let client = client.clone();
        let call =
            tokio::spawn(
                async move { run(&client, Kind::Unary, &script, vec![request(1, 10)]).await },
            );
        probe.started(name).await;
        Self {
            probe: probe.clone(),
            gate: name.to_owned(),
            call,
        }
    }

    /// Lets it finish.
    pub(crate) async fn finish(self) -> Outcome {
        self.probe.open(&self.gate);
        self.outcome().await
    }

    /// Its result, without opening the gate.
    pub(crate) async fn outcome(self) -> Outcome {
        self.call.await.expect("the call does not panic")
    }
}
