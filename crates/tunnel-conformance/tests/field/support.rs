//! One service behind plain tonic or a tunnel, on a link that can fail.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::service::Routes;
use tonic::transport::{Channel, Server};
use tonic::{Code, Status};
use tunnel_client::{
    Config, ConfigBuilder, ForwardTunnel, LinksHandle, ReverseTunnelServer, TunnelChannel,
    endpoint_for_tunnels,
};
use tunnel_conformance::client::open;
use tunnel_conformance::payload::{assert_pattern, request};
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::proto::{Request, Script};
use tunnel_conformance::proxy::Way;
use tunnel_conformance::service::scripted;
pub(crate) use tunnel_conformance::testing::{assert_usable, eventually, guarded};
use tunnel_conformance::{Client, FaultProxy, Kind, Probe, TcpServer, TestChannel};
use tunnel_server::{AcceptedTunnel, TunnelServiceHandler, server_for_tunnels};

/// The transport of the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    Plain,
    Forward,
    Reverse,
}

impl Path {
    /// Plain tonic, which is the oracle, and both tunnel directions.
    pub(crate) const ALL: [Self; 3] = [Self::Plain, Self::Forward, Self::Reverse];
    pub(crate) const TUNNELS: [Self; 2] = [Self::Forward, Self::Reverse];

    /// The link direction of the responses. It is reversed for a device, because the device dials.
    pub(crate) fn response_way(self) -> Way {
        match self {
            Self::Plain | Self::Forward => Way::FromTarget,
            Self::Reverse => Way::ToTarget,
        }
    }

    pub(crate) fn request_way(self) -> Way {
        match self.response_way() {
            Way::FromTarget => Way::ToTarget,
            Way::ToTarget => Way::FromTarget,
        }
    }
}

/// The scripted service at the far end of one connection.
pub(crate) struct Rig {
    pub(crate) path: Path,
    pub(crate) link: FaultProxy,
    pub(crate) client: Client,
    pub(crate) probe: Probe,
    pub(crate) tunnel: Option<Tunnel>,
    _server: TcpServer,
}

/// The tunnel of a rig, and its ends.
pub(crate) struct Tunnel {
    pub(crate) channel: TunnelChannel,
    /// The server's end.
    pub(crate) handle: AcceptedTunnel,
    /// The links of the device, if the far end is a device.
    pub(crate) device: Option<LinksHandle>,
}

impl Rig {
    pub(crate) async fn start(path: Path) -> Self {
        Self::start_with(path, |config| config).await
    }

    /// The same with custom settings for both ends.
    pub(crate) async fn start_with(
        path: Path,
        settings: impl FnOnce(ConfigBuilder) -> ConfigBuilder,
    ) -> Self {
        let config = settings(Config::builder()).build().expect("valid settings");
        let probe = Probe::default();
        match path {
            Path::Plain => Self::plain(probe).await,
            Path::Forward => Self::forward(probe, config).await,
            Path::Reverse => Self::reverse(probe, config).await,
        }
    }

    async fn plain(probe: Probe) -> Self {
        let routes = Routes::new(scripted(&probe));
        let server = TcpServer::start(Server::builder(), routes).await;
        let link = FaultProxy::to(server.address()).await;
        let channel = link.endpoint().connect().await.expect("it listens");
        Self {
            path: Path::Plain,
            link,
            client: TestServiceClient::new(TestChannel::new(channel)),
            probe,
            tunnel: None,
            _server: server,
        }
    }

    async fn forward(probe: Probe, config: Config) -> Self {
        let handler = TunnelServiceHandler::builder()
            .config(config.clone())
            .add_service(scripted(&probe))
            .build();
        let (server, link) = listen(&handler).await;
        let channel = open_tunnel(connect(&link).await, config).await;
        let tunnel = Tunnel {
            channel,
            handle: handler.tunnels().remove(0),
            device: None,
        };
        Self::with_tunnel(Path::Forward, probe, server, link, tunnel)
    }

    async fn reverse(probe: Probe, config: Config) -> Self {
        let handler = TunnelServiceHandler::builder()
            .config(config.clone())
            .build();
        let (server, link) = listen(&handler).await;
        let device = ReverseTunnelServer::builder(endpoint_for_tunnels(link.endpoint()))
            .config(config)
            .add_service(scripted(&probe))
            .build();
        let device_handle = device.handle();
        tokio::spawn(async move {
            // The test checks the reason at the other end.
            let _ = device.serve().await;
        });
        eventually(|| !handler.all_reverse_tunnels().is_empty()).await;
        let tunnel = Tunnel {
            channel: handler.all_reverse_tunnels().remove(0),
            handle: handler.tunnels().remove(0),
            device: Some(device_handle),
        };
        Self::with_tunnel(Path::Reverse, probe, server, link, tunnel)
    }

    fn with_tunnel(
        path: Path,
        probe: Probe,
        server: TcpServer,
        link: FaultProxy,
        tunnel: Tunnel,
    ) -> Self {
        Self {
            path,
            link,
            client: TestServiceClient::new(TestChannel::new(tunnel.channel.clone())),
            probe,
            tunnel: Some(tunnel),
            _server: server,
        }
    }

    /// Panics unless a call succeeds on the same connection and the same tunnel.
    pub(crate) async fn assert_lives(&self) {
        if let Some(reason) = self.tunnel.as_ref().and_then(|t| t.channel.end_reason()) {
            panic!("{:?}: the tunnel has ended: {reason}", self.path);
        }
        assert_usable(&self.client).await;
        assert_eq!(self.link.accepted(), 1, "{:?}", self.path);
    }

    /// Waits until every handler with this name has ended.
    pub(crate) async fn handlers_gone(&self, name: &str) {
        let gone = |record: &_| is_over(record);
        if self.probe.record(name).started > 0 {
            self.probe.until(name, gone).await;
        }
    }
}

fn is_over(record: &tunnel_conformance::probe::Record) -> bool {
    record.started == record.finished + record.dropped
}

async fn listen(handler: &TunnelServiceHandler) -> (TcpServer, FaultProxy) {
    let routes = Routes::new(handler.service());
    let server = TcpServer::start(server_for_tunnels(Server::builder()), routes).await;
    let link = FaultProxy::to(server.address()).await;
    (server, link)
}

/// Connects with the settings for tunnels.
pub(crate) async fn connect(link: &FaultProxy) -> Channel {
    let connected = endpoint_for_tunnels(link.endpoint()).connect().await;
    connected.expect("it listens")
}

pub(crate) async fn open_tunnel(channel: Channel, config: Config) -> TunnelChannel {
    let opened = ForwardTunnel::new(channel).config(config).open().await;
    opened.expect("the tunnel is accepted")
}

/// The results of a load's calls.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) answered: usize,
    /// Calls dropped by their callers.
    pub(crate) dropped: usize,
    /// Calls ended by their deadline.
    pub(crate) late: usize,
    /// Calls that failed otherwise, by reason.
    pub(crate) failed: BTreeMap<String, usize>,
}

/// The result of one call.
pub(crate) enum Fate {
    Answered,
    Dropped,
    Failed(Status),
}

impl Tally {
    fn count(&mut self, path: Path, fate: Fate) {
        match fate {
            Fate::Answered => self.answered += 1,
            Fate::Dropped => self.dropped += 1,
            Fate::Failed(status) if is_late(path, &status) => self.late += 1,
            Fate::Failed(status) => {
                let reason = format!("{:?}: {}", status.code(), status.message());
                *self.failed.entry(reason).or_default() += 1;
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.dropped += other.dropped;
        self.late += other.late;
        for (reason, count) in other.failed {
            *self.failed.entry(reason).or_default() += count;
        }
    }
}

/// Whether a call ended by its deadline. Plain tonic reports CANCELLED if the client's own timer
/// fires first.
fn is_late(path: Path, status: &Status) -> bool {
    match status.code() {
        Code::DeadlineExceeded => true,
        Code::Cancelled => path == Path::Plain && status.message() == "Timeout expired",
        _ => false,
    }
}

/// Makes `total` numbered calls. Each of the callers makes one call after another.
pub(crate) async fn load<F>(
    path: Path,
    callers: usize,
    total: usize,
    call: impl Fn(usize) -> F + Clone + Send + 'static,
) -> Tally
where
    F: Future<Output = Fate> + Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut working = JoinSet::new();
    for _ in 0..callers {
        let (next, call) = (next.clone(), call.clone());
        working.spawn(async move {
            let mut tally = Tally::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    return tally;
                }
                tally.count(path, call(number).await);
            }
        });
    }
    let mut tally = Tally::default();
    for part in working.join_all().await {
        tally.add(part);
    }
    tally
}

/// A call that stays active beside a load. It exchanges one message after another.
pub(crate) struct Bystander {
    stop: Arc<AtomicUsize>,
    talking: JoinHandle<usize>,
}

impl Bystander {
    pub(crate) async fn start(client: &Client) -> Self {
        let (say, requests) = mpsc::unbounded_channel::<Request>();
        let script = Script::named("bystander").echo_all();
        let requests = script.request(UnboundedReceiverStream::new(requests));
        // The script echoes, so the headers come with the first message.
        say.send(request(0, 100)).expect("the stream is held");
        let call = open(client, Kind::Bidi, requests).await;
        let mut call = call.expect("the bystander's call begins");
        let stop = Arc::new(AtomicUsize::new(0));
        let stopped = stop.clone();
        let talking = tokio::spawn(async move {
            let mut round = 0;
            loop {
                let message = call.expect_next().await;
                assert_pattern(&message.payload, round, 100);
                round += 1;
                if stopped.load(Ordering::Relaxed) > 0 {
                    break;
                }
                say.send(request(round, 100)).expect("the stream is held");
            }
            drop(say);
            call.outcome().await.expect_success();
            usize::try_from(round).expect("few rounds")
        });
        Self { stop, talking }
    }

    /// Panics unless the call stayed active and ends with success.
    pub(crate) async fn assert_undisturbed(self) {
        self.stop.store(1, Ordering::Relaxed);
        let rounds = self.talking.await.expect("the bystander's call goes on");
        assert!(rounds > 0);
    }
}
