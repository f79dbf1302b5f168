//! A server that stops by its deadline, even if clients do not cooperate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, pending};
use http::header::CONTENT_TYPE;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tower::ServiceExt as _;
use tunnel_client::ForwardTunnel;
use tunnel_conformance::client::{open, run};
use tunnel_conformance::proto::Script;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::service::scripted;
use tunnel_conformance::{FaultProxy, Kind, Probe, TestChannel};
use tunnel_core::NOT_PROCESSED_KEY;
use tunnel_server::{Opening, Shutdown, TunnelServiceHandler, server_for_tunnels};
use tunnel_tonic::outer::OPEN_REVERSE_TUNNEL_PATH;

use crate::drains::{assert_all_finish, calls_in_flight, in_order};
use crate::support::by_hand;
use crate::support::device::{Device, Dial};
use crate::support::{
    NEVER, assert_usable, client, eventually, guarded, handler, one, one_request, ready,
};

/// A server that stops as the documentation shows. Its handler's services can also be called
/// without a tunnel.
struct Graceful {
    handler: TunnelServiceHandler,
    address: SocketAddr,
    probe: Probe,
    stop: Arc<Notify>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Graceful {
    async fn start(handler: TunnelServiceHandler, deadline: Duration) -> Self {
        Self::start_with(handler, |shutdown| shutdown.timeout(deadline)).await
    }

    async fn start_with(
        handler: TunnelServiceHandler,
        settings: impl FnOnce(Shutdown) -> Shutdown,
    ) -> Self {
        let (incoming, address) = listen().await;
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let shutdown = settings(Shutdown::on(async move { stopped.notified().await }));
        let probe = Probe::default();
        let routes = Routes::new(handler.service()).add_service(scripted(&probe));
        let router = server_for_tunnels(Server::builder()).add_routes(routes);
        let serving = handler.clone();
        Self {
            handler,
            address,
            probe,
            stop,
            server: tokio::spawn(async move { serving.serve(router, incoming, shutdown).await }),
        }
    }

    async fn connect(&self) -> Channel {
        connect(self.address).await
    }

    async fn device(&self, name: &str) -> Device {
        let dial = Dial::new(&Probe::default()).named(name);
        let device = dial.dial(self.connect().await).await.expect("accepted");
        ready(&self.handler, &device).await;
        device
    }

    /// Shuts the server down and waits for its end.
    async fn ended(self) {
        self.stop.notify_one();
        let ended = self.server.await.expect("the server does not panic");
        ended.expect("the server ends cleanly");
    }
}

async fn listen() -> (TcpIncoming, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await;
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("bound");
    (TcpIncoming::from(listener), address)
}

async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("valid");
    let connected = endpoint.connect().await;
    connected.expect("the server accepts a connection")
}

/// Clients that never finish: a silent connection, one that stops inside the HTTP/2 preface, and a
/// frozen one with a call in flight. They exist until the returned value is dropped.
async fn clients_that_never_end(address: SocketAddr, probe: &Probe) -> impl Sized + use<> {
    let silent = TcpStream::connect(address).await.expect("it listens");
    let mut half = TcpStream::connect(address).await.expect("it listens");
    half.write_all(b"PRI * HTTP/2").await.expect("it listens");
    let link = FaultProxy::to(address).await;
    let frozen = connect(link.address()).await;
    let frozen = TestServiceClient::new(TestChannel::new(frozen));
    let call = tokio::spawn(async move {
        let script = Script::named("frozen").receive_all().wait("never");
        run(&frozen, Kind::Unary, &script, one_request()).await
    });
    probe.until("frozen", |record| record.started == 1).await;
    link.freeze();
    (silent, half, link, call)
}

/// tonic's own shutdown, with the same clients, is still waiting when this server has stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_stops_beside_clients_that_plain_tonic_waits_for() {
    guarded(async {
        let probe = Probe::default();
        let (incoming, address) = listen().await;
        let (stop, stopped) = oneshot::channel::<()>();
        let plain = Server::builder()
            .add_service(scripted(&probe))
            .serve_with_incoming_shutdown(incoming, async { drop(stopped.await) });
        let plain = tokio::spawn(plain);
        let _of_plain = clients_that_never_end(address, &probe).await;

        let server = Graceful::start(handler(|b| b), Duration::from_millis(200)).await;
        let _of_ours = clients_that_never_end(server.address, &server.probe).await;
        let link = FaultProxy::to(server.address).await;
        let dial = Dial::new(&Probe::default()).named("frozen");
        let device = dial.dial(connect(link.address()).await).await;
        let device = device.expect("accepted");
        ready(&server.handler, &device).await;
        link.freeze();

        stop.send(()).expect("it runs");
        let handler = server.handler.clone();
        server.ended().await;
        eventually(|| handler.tunnels().is_empty()).await;
        assert!(!plain.is_finished(), "tonic's shutdown should still wait");
        plain.abort();
    })
    .await;
}

/// One call is an ordinary one, and one is in a forward tunnel.
#[tokio::test(flavor = "multi_thread")]
async fn calls_in_flight_finish_before_a_server_stops() {
    guarded(async {
        let inside = Probe::default();
        let handler = handler(|builder| builder.add_service(scripted(&inside)));
        let server = Graceful::start(handler, NEVER).await;
        let tunnel = ForwardTunnel::new(server.connect().await).open().await;
        let tunnel = TestChannel::new(tunnel.expect("accepted"));
        let plain = TestChannel::new(server.connect().await);
        let script = || {
            Script::named("in flight")
                .receive_all()
                .wait("go on")
                .send(1, 10, 1)
        };
        let calls = [plain, tunnel].map(|channel| {
            let client = TestServiceClient::new(channel);
            tokio::spawn(async move { run(&client, Kind::Unary, &script(), one_request()).await })
        });
        let probes = [server.probe.clone(), inside];
        for probe in &probes {
            probe
                .until("in flight", |record| record.received == 1)
                .await;
        }
        let handler = server.handler.clone();
        let ended = tokio::spawn(server.ended());
        // A tunnel that is not ready shows that the drain has begun.
        eventually(|| !handler.tunnels()[0].is_ready()).await;
        assert!(!ended.is_finished());
        probes.iter().for_each(|probe| probe.open("go on"));
        for call in calls {
            call.await.expect("no panic").expect_success();
        }
        ended.await.expect("no panic");
    })
    .await;
}

/// A load balancer thus notices before requests are refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_ready_serves_all_but_new_tunnels() {
    guarded(async {
        let (told, hook) = oneshot::channel();
        let server = Graceful::start_with(handler(|b| b), |shutdown| {
            shutdown.not_ready(NEVER, async move {
                let _ = told.send(());
            })
        });
        let server = server.await;
        let _device = server.device("device-7").await;
        let channel = server.handler.key_as_channel("device-7");
        server.stop.notify_one();
        hook.await.expect("the hook runs");

        let late = http::Request::post(OPEN_REVERSE_TUNNEL_PATH)
            .header(CONTENT_TYPE, "application/grpc")
            .body(Body::empty())
            .expect("legal");
        let refused = server.connect().await.oneshot(late).await;
        let refused = refused.expect("it answers");
        let header = |name: &str| refused.headers().get(name)?.to_str().ok();
        let unavailable = i32::from(Code::Unavailable).to_string();
        assert_eq!(header("grpc-status"), Some(&*unavailable));
        assert!(header(NOT_PROCESSED_KEY).is_some(), "{refused:?}");
        let pushback = header("grpc-retry-pushback-ms").and_then(|ms| ms.parse().ok());
        assert!(matches!(pushback, Some(50..=150)), "{refused:?}");
        // Calls through open tunnels and ordinary calls are still served.
        assert_usable(&channel).await;
        let plain = TestServiceClient::new(TestChannel::new(server.connect().await));
        let script = Script::named("plain").receive_all().send(1, 10, 1);
        let outcome = run(&plain, Kind::Unary, &script, one_request()).await;
        outcome.expect_success();
        assert!(!server.server.is_finished());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_tells_its_devices_of_siblings_and_serves_them_meanwhile() {
    guarded(async {
        let server = Graceful::start_with(handler(|b| b), |shutdown| {
            shutdown.not_ready(Duration::from_secs(7200), async {})
        });
        let server = server.await;
        let device = server.device("device-7").await;
        let channel = server.handler.key_as_channel("device-7");
        let sibling = "https://gateway-2.example/";
        server
            .handler
            .set_siblings([http::Uri::from_static(sibling)]);
        server.stop.notify_one();
        device.tunnel.draining().await;
        let told = device.tunnel.told();
        assert_eq!(told.siblings, [sibling]);
        assert_eq!(told.grace, Some(Duration::from_secs(3600)));
        assert_usable(&channel).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_dropped_closes_its_connections() {
    guarded(async {
        let server = Graceful::start(handler(|builder| builder), NEVER).await;
        let device = server.device("device-7").await;
        server.server.abort();
        device.closed().await;
        eventually(|| server.handler.tunnels().is_empty()).await;
    })
    .await;
}

/// Trap 17.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_shuts_down_when_its_calls_have_finished() {
    guarded(async {
        let server = Graceful::start(handler(|builder| builder), NEVER).await;
        let device = server.device("device-7").await;
        let idle = server.device("idle").await;
        let channel = server.handler.key_as_channel("device-7");
        let calls = calls_in_flight(&channel, &device).await;
        let (probe, tunnel) = (device.probe.clone(), device.tunnel.clone());
        let opens = tokio::spawn(async move {
            tunnel.draining().await;
            probe.open("go on");
        });
        server.ended().await;
        opens.await.expect("no panic");
        assert_all_finish(calls).await;
        for device in [device, idle] {
            assert!(in_order(&device.closed().await));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_shuts_down_by_the_deadline_whatever_its_devices_do() {
    guarded(async {
        let undecided = |opening: Opening| async move {
            match opening.key() {
                Some(key) if key.as_str() == "undecided" => pending().await,
                _ => Ok(()),
            }
        };
        let handler = handler(|builder| builder.admit(undecided));
        let server = Graceful::start(handler.clone(), Duration::from_secs(1)).await;
        // A device whose call does not finish.
        let busy = server.device("busy").await;
        let calls = calls_in_flight(&handler.key_as_channel("busy"), &busy).await;
        // A device that never sends settings, and one that sends only settings.
        let mute = by_hand::knock(server.connect().await, "mute").await;
        let lazy = by_hand::device(server.connect().await, "lazy").await;
        let channel = handler.key_as_channel("lazy");
        channel.wait_for_ready(NEVER).await.expect("ready");
        let script = Script::named("lazy");
        let lost = tokio::spawn({
            let client = client(&channel);
            async move { run(&client, Kind::Unary, &script, one_request()).await }
        });
        // A device whose responses are not read, and one that waits for admission.
        let flood = server.device("flood").await;
        let script = Script::named("flood").receive(1).send(u64::MAX, 60_000, 1);
        let flooded = client(&handler.key_as_channel("flood"));
        let flooded = open(&flooded, Kind::Bidi, script.request(one())).await;
        let flooded = flooded.expect("headers come");
        let knocking = Dial::new(&Probe::default()).named("undecided");
        let knocking = tokio::spawn(knocking.knock(server.connect().await));
        server.ended().await;
        for outcome in join_all(calls).await {
            outcome.expect("no panic").expect_failure(Code::Unavailable);
        }
        lost.await
            .expect("no panic")
            .expect_failure(Code::Unavailable);
        flooded.outcome().await.expect_failure(Code::Unavailable);
        assert!(knocking.await.expect("no panic").is_err());
        drop((mute, lazy, flood));
    })
    .await;
}
