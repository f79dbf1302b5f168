//! The rows: a scenario and a proxy each.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::IntervalStream;
use tunnel_conformance::client::{call, open, run as call_with};
use tunnel_conformance::payload::{request, requests};
use tunnel_conformance::proto::Script;
use tunnel_conformance::{Client, FaultProxy, Kind as Call, Probe};
use tunnel_process::Signal;

use super::servers::{Kind, Proxy};
use crate::ends::{Device, Gateway, client, echo, open_forward, start_process};
use crate::progress::Line;

/// The time within which the loss of a peer is noticed, and the tolerance for a busy machine.
const NOTICED: Duration = Duration::from_secs(15);
const SLACK: Duration = Duration::from_secs(2);

/// Longer than the idle timeout of every tested proxy.
const IDLE: Duration = Duration::from_secs(150);

/// Longer than nginx's timeout for a stream that is silent in one direction.
const ONE_WAY: Duration = Duration::from_secs(75);

/// The name of the device.
const DEVICE: &str = "one";

/// One row of the table.
pub(crate) struct Row {
    name: &'static str,
    pub(crate) proxy: Kind,
    /// Whether the row takes at most a minute.
    pub(crate) quick: bool,
    pub(crate) run: fn(Kind, Line) -> BoxFuture<'static, Result<String>>,
}

impl Row {
    pub(crate) fn title(&self) -> String {
        format!("{} behind {}", self.name, self.proxy.name())
    }
}

macro_rules! rows {
    ($($quick:ident $name:literal $function:ident [$($proxy:ident),*];)*) => {
        &[$($(Row {
            name: $name,
            proxy: Kind::$proxy,
            quick: rows!(@ $quick),
            run: |proxy, line| Box::pin($function(proxy, line)),
        },)*)*]
    };
    (@ quick) => { true };
    (@ long) => { false };
}

pub(crate) const ROWS: &[Row] = rows! {
    long "idle tunnels of both directions live" idle [Haproxy, Nginx];
    long "a device that only sends lives" only_responses [Haproxy, Nginx];
    long "a caller that only sends lives" only_requests [Haproxy, NginxForTunnels];
    quick "a frozen gateway is noticed by device and caller" frozen_gateway [Haproxy, Nginx];
    quick "a frozen device and a frozen caller are noticed" frozen_clients [Haproxy, Nginx];
    quick "a device that loses its network and comes back is called at once" lost_network
        [Haproxy, Nginx];
    quick "an upload over the body limit fails with an error that names it" body_limit [Nginx];
    quick "8 MiB each way pass" large_bodies [Haproxy, NginxForTunnels];
};

/// A forward and a reverse tunnel through a proxy, with both ends in this process.
struct Pair {
    gateway: Gateway,
    proxy: Proxy,
    device: Device,
    tunnel: tunnel_client::TunnelChannel,
}

impl Pair {
    async fn start(kind: Kind) -> Result<Self> {
        let probe = Probe::default();
        let gateway = Gateway::start(&probe).await;
        let proxy = Proxy::start(kind, gateway.address())?;
        let device = Device::start(proxy.address, DEVICE, &probe)?;
        gateway.has(DEVICE, 1).await;
        let tunnel = open_forward(proxy.address).await?;
        Ok(Self {
            gateway,
            proxy,
            device,
            tunnel,
        })
    }

    /// Checks that both tunnels are still the first ones, and that calls through them are answered.
    async fn assert_lives(&self) -> Result<()> {
        if let Some(reason) = self.tunnel.end_reason() {
            return Err(reason).context("the forward tunnel has ended");
        }
        echo(&client(&self.tunnel)).await.context("forward")?;
        let tunnels = self.gateway.handler.tunnels_of_key(DEVICE);
        ensure!(
            tunnels.len() == 1,
            "{} tunnels of the device",
            tunnels.len()
        );
        let opened = self.device.handle.links();
        ensure!(
            opened.iter().all(|link| link.is_connected()),
            "the device is away"
        );
        echo(&self.gateway.client(DEVICE)).await.context("reverse")
    }

    fn first_tunnel(&self) -> Option<String> {
        let tunnels = self.gateway.handler.tunnels_of_key(DEVICE);
        tunnels
            .first()
            .map(|tunnel| format!("{:?}", tunnel.info().id()))
    }
}

async fn idle(kind: Kind, line: Line) -> Result<String> {
    let pair = Pair::start(kind).await?;
    let first = pair.first_tunnel();
    line.at(format!("idle for {} s", IDLE.as_secs()));
    sleep(IDLE).await;
    ensure!(
        pair.first_tunnel() == first,
        "the device had to open another tunnel"
    );
    pair.assert_lives().await?;
    Ok(format!(
        "idle for {} s, then calls are answered",
        IDLE.as_secs()
    ))
}

/// Only the tunnels' handlers send. So the response direction of the reverse tunnel's outer call is
/// silent, and the request direction of the forward tunnel's.
async fn only_responses(kind: Kind, line: Line) -> Result<String> {
    let pair = Pair::start(kind).await?;
    line.at(format!("one message a second for {} s", ONE_WAY.as_secs()));
    let (forward, reverse) = tokio::join!(
        download(client(&pair.tunnel)),
        download(pair.gateway.client(DEVICE))
    );
    forward.context("forward")?;
    reverse.context("reverse")?;
    Ok(format!("one message a second for {} s", ONE_WAY.as_secs()))
}

async fn download(client: Client) -> Result<()> {
    let gates = (0..ONE_WAY.as_secs()).map(|second| format!("{second}"));
    // The handler has no timer, so the caller sends a short request for each message.
    let script = Script::named("ticks").echo_all();
    let (say, requests) = tokio::sync::mpsc::unbounded_channel();
    let requests = tokio_stream::wrappers::UnboundedReceiverStream::new(requests);
    say.send(request(0, 10))?;
    let mut ticks = open(&client, Call::Bidi, script.request(requests)).await?;
    for _ in gates {
        ticks.next().await?.context("the download ended")?;
        sleep(Duration::from_secs(1)).await;
        say.send(request(1, 10))?;
    }
    Ok(())
}

async fn only_requests(kind: Kind, line: Line) -> Result<String> {
    let pair = Pair::start(kind).await?;
    line.at(format!("one message a second for {} s", ONE_WAY.as_secs()));
    let (forward, reverse) = tokio::join!(
        upload(client(&pair.tunnel)),
        upload(pair.gateway.client(DEVICE))
    );
    forward.context("forward")?;
    reverse.context("reverse")?;
    Ok(format!("one message a second for {} s", ONE_WAY.as_secs()))
}

async fn upload(client: Client) -> Result<()> {
    let seconds = usize::try_from(ONE_WAY.as_secs())?;
    let ticks = IntervalStream::new(tokio::time::interval(Duration::from_secs(1)));
    let requests = ticks.take(seconds).map(|_| request(1, 10));
    let script = Script::named("ticks").receive_all().summarize();
    let outcome = call(&client, Call::ClientStream, script.request(requests)).await;
    outcome.end.map(drop).context("the upload failed")
}

async fn frozen_gateway(kind: Kind, line: Line) -> Result<String> {
    let (gateway, address) = start_process(&["gateway"]).await?;
    let proxy = Proxy::start(kind, address.parse()?)?;
    let probe = Probe::default();
    let device = Device::start(proxy.address, DEVICE, &probe)?;
    device.handle.connected().await?;
    let tunnel = open_forward(proxy.address).await?;
    echo(&client(&tunnel)).await?;
    gateway.signal(Signal::Stop)?;
    let frozen = Instant::now();
    line.at("the gateway is frozen");
    let (device_knows, caller_knows) = tokio::join!(
        noticed(frozen, device.lost()),
        noticed(frozen, async { drop(tunnel.ended().await) })
    );
    let words = format!(
        "device after {}, caller after {}",
        device_knows.context("the device")?,
        caller_knows.context("the caller")?
    );
    gateway.signal(Signal::Continue)?;
    line.at("the gateway goes on");
    let back = timeout(GRACE, device.handle.connected()).await;
    back.context("the device did not come back")??;
    Ok(words)
}

/// The time limit for a device to reconnect to a gateway that runs again.
const GRACE: Duration = Duration::from_secs(40);

/// Waits for `event` and returns the seconds since `since` as text. Fails after the time limit.
async fn noticed(since: Instant, event: impl Future<Output = ()>) -> Result<String> {
    let most = NOTICED + SLACK;
    timeout(most, event)
        .await
        .with_context(|| format!("did not notice within {} s", most.as_secs()))?;
    Ok(format!("{:.1} s", since.elapsed().as_secs_f64()))
}

async fn frozen_clients(kind: Kind, line: Line) -> Result<String> {
    let probe = Probe::default();
    let gateway = Gateway::start(&probe).await;
    let proxy = Proxy::start(kind, gateway.address())?;
    let address = proxy.address.to_string();
    let (device, _) = start_process(&["device", &address, DEVICE]).await?;
    let (caller, _) = start_process(&["caller", &address]).await?;
    gateway.has(DEVICE, 1).await;
    echo(&gateway.client(DEVICE)).await?;
    device.signal(Signal::Stop)?;
    let frozen = Instant::now();
    caller.signal(Signal::Stop)?;
    line.at("device and caller are frozen");
    noticed(frozen, async {
        while !gateway.handler.tunnels().is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .map(|time| format!("both after {time}"))
    .context("the gateway")
}

/// Makes calls by key while one connection of the device is silently lost.
async fn lost_network(kind: Kind, line: Line) -> Result<String> {
    let probe = Probe::default();
    let gateway = Gateway::start(&probe).await;
    let proxy = Proxy::start(kind, gateway.address())?;
    let network = FaultProxy::to(proxy.address).await;
    let old = Device::start(network.address(), DEVICE, &probe)?;
    gateway.has(DEVICE, 1).await;
    let client = gateway.client(DEVICE);
    echo(&client).await?;
    let lost = Instant::now();
    network.freeze();
    let new = Device::start(proxy.address, DEVICE, &probe)?;
    new.handle.connected().await?;
    gateway.has(DEVICE, 2).await;
    line.at("the device has come back by another way");
    let gone = async {
        noticed(lost, gateway.has(DEVICE, 1))
            .await
            .context("the gateway")
    };
    let calls = async {
        let mut failed = 0;
        let mut made = 0;
        while lost.elapsed() < NOTICED {
            let mut slow = Script::named("echo").echo_all().request(request(1, 100));
            slow.set_timeout(Duration::from_secs(2));
            made += 1;
            failed += usize::from(client.clone().unary(slow).await.is_err());
            sleep(Duration::from_millis(50)).await;
        }
        (made, failed)
    };
    let (gone, (made, failed)) = tokio::join!(gone, calls);
    let gone = gone?;
    // At most two calls may fail: the one in flight when the tunnel went silent, and one more
    // before the silence is noticed.
    ensure!(
        failed <= 2,
        "{failed} of {made} calls failed; tunnel gone after {gone}"
    );
    drop(old);
    Ok(format!(
        "{failed} of {made} calls failed, tunnel gone after {gone}"
    ))
}

async fn body_limit(kind: Kind, line: Line) -> Result<String> {
    let pair = Pair::start(kind).await?;
    line.at("8 MiB go up");
    let script = Script::named("upload").receive_all().summarize();
    let upload = requests(1, 128, 64 << 10);
    let forward = call_with(&client(&pair.tunnel), Call::ClientStream, &script, upload).await;
    let status = forward
        .end
        .err()
        .context("nginx accepted more than its limit")?;
    let words = status.message().to_owned();
    ensure!(
        words.contains("client_max_body_size"),
        "the error does not name client_max_body_size: {words}"
    );
    drop(pair.proxy);
    Ok(words)
}

async fn large_bodies(kind: Kind, line: Line) -> Result<String> {
    let pair = Pair::start(kind).await?;
    line.at("8 MiB go each way");
    for client in [client(&pair.tunnel), pair.gateway.client(DEVICE)] {
        let script = Script::named("echo").echo_all();
        let upload = script.request(stream::iter(requests(1, 128, 64 << 10)));
        let outcome = call(&client, Call::Bidi, upload).await;
        outcome.end.context("a call failed")?;
        ensure!(
            outcome.messages.len() == 128,
            "{} messages",
            outcome.messages.len()
        );
    }
    pair.assert_lives().await?;
    Ok("in both directions".to_owned())
}
