//! Callers: plain clients of gRPC, which name the device in metadata.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use example_support::test::EchoRequest;
use example_support::test::echo_service_client::EchoServiceClient;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::devices::key;
use crate::history::Call;
use crate::program::LOOK;
use crate::service::message;

/// The deadline of a call, unless a row has another one.
pub(crate) const DEADLINE: Duration = Duration::from_secs(8);

/// The pause of a caller between two calls.
const PAUSE: Duration = Duration::from_millis(20);

/// One call in ten is served for this time.
const SLOW: Duration = Duration::from_millis(200);

/// Calls at once that only look whether devices can be reached.
const AT_ONCE: usize = 20;

/// How long calls may take to come.
const MORE: Duration = Duration::from_secs(60);

/// Who calls whom.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) callers: usize,
    /// The addresses for clients. A caller goes to the next one after a failure.
    pub(crate) gateways: Vec<SocketAddr>,
    /// Whether the addresses are those of gateways, in their order, and not of a balancer.
    pub(crate) direct: bool,
    /// The devices.
    pub(crate) keys: Vec<usize>,
    /// The deadline of each call.
    pub(crate) deadline: Duration,
}

/// Callers that run.
pub(crate) struct Load {
    start: Instant,
    stop: watch::Sender<bool>,
    /// Calls that have ended.
    ended: watch::Sender<usize>,
    tasks: JoinSet<Vec<Call>>,
}

impl Load {
    pub(crate) fn start(plan: &Plan) -> Result<Self> {
        let mut load = Self {
            start: Instant::now(),
            stop: watch::Sender::new(false),
            ended: watch::Sender::new(0),
            tasks: JoinSet::new(),
        };
        for number in 0..plan.callers {
            let caller = Caller {
                number,
                channels: channels(&plan.gateways)?,
                direct: plan.direct,
                deadline: plan.deadline,
                at: number % plan.gateways.len(),
                start: load.start,
                ended: load.ended.clone(),
            };
            let mut keys = plan.keys.clone();
            fastrand::shuffle(&mut keys);
            load.tasks.spawn(caller.run(keys, load.stop.subscribe()));
        }
        Ok(load)
    }

    /// The time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Waits until this number of calls more have ended.
    pub(crate) async fn more(&self, calls: usize) -> Result<()> {
        let mut ended = self.ended.subscribe();
        let goal = *ended.borrow() + calls;
        let enough = ended.wait_for(|ended| *ended >= goal);
        match timeout(MORE, enough).await {
            Ok(_) => Ok(()),
            Err(_) => bail!("not {calls} calls in {MORE:?}"),
        }
    }

    /// Waits for the calls in flight, and returns all calls.
    pub(crate) async fn stop(self) -> Vec<Call> {
        self.stop.send_replace(true);
        self.tasks.join_all().await.into_iter().flatten().collect()
    }
}

fn channels(addresses: &[SocketAddr]) -> Result<Vec<Channel>> {
    let channel = |address| {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
        anyhow::Ok(endpoint.connect_timeout(DEADLINE).connect_lazy())
    };
    addresses.iter().map(channel).collect()
}

struct Caller {
    number: usize,
    channels: Vec<Channel>,
    direct: bool,
    deadline: Duration,
    /// The channel that is used now.
    at: usize,
    start: Instant,
    ended: watch::Sender<usize>,
}

impl Caller {
    async fn run(mut self, keys: Vec<usize>, mut stop: watch::Receiver<bool>) -> Vec<Call> {
        let mut calls = Vec::new();
        for (count, key) in keys.into_iter().cycle().enumerate() {
            let wait = match count % 10 {
                9 => SLOW,
                _ => Duration::ZERO,
            };
            calls.push(self.call(key, wait).await);
            self.ended.send_modify(|ended| *ended += 1);
            let stopped = stop.wait_for(|stopped| *stopped);
            if timeout(PAUSE, stopped).await.is_ok() {
                break;
            }
        }
        calls
    }

    async fn call(&mut self, key: usize, wait: Duration) -> Call {
        let (id, gateway) = (next_id(), self.at);
        let begun = self.start.elapsed();
        let outcome = call(&self.channels[gateway], key, id, wait, self.deadline).await;
        if outcome.is_err() {
            self.at = (self.at + 1) % self.channels.len();
        }
        Call {
            id,
            key,
            caller: self.number,
            gateway: self.direct.then_some(gateway),
            begun,
            ended: self.start.elapsed(),
            wait,
            outcome,
        }
    }
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Calls a device. Returns its session.
async fn call(
    channel: &Channel,
    number: usize,
    id: u64,
    wait: Duration,
    deadline: Duration,
) -> Result<String, String> {
    let failed = |status: &Status| format!("{:?}: {}", status.code(), status.message());
    let mut request = Request::new(EchoRequest {
        message: message(id, wait),
    });
    let name = key(number);
    let Ok(value) = name.parse() else {
        return Err("no legal key".into());
    };
    request.metadata_mut().insert("tunnel-key", value);
    request.set_timeout(deadline);
    let mut client = EchoServiceClient::new(channel.clone());
    let answer = timeout(deadline, client.echo(request)).await;
    let late = || Status::new(Code::DeadlineExceeded, "the caller has waited long enough");
    let answer = answer.unwrap_or_else(|_| Err(late()));
    let answer = answer.map_err(|status| failed(&status))?.into_inner();
    match answer.message.split_once(' ') {
        Some((who, session)) if who == name => Ok(session.to_owned()),
        _ => Err(format!(
            "{name} was meant, and {:?} has answered",
            answer.message
        )),
    }
}

/// Makes one call, as a caller of its own.
pub(crate) async fn call_once(gateway: SocketAddr, key: usize) -> Result<Call> {
    let channels = channels(&[gateway])?;
    let (id, start) = (next_id(), Instant::now());
    let outcome = call(&channels[0], key, id, Duration::ZERO, DEADLINE).await;
    Ok(Call {
        id,
        key,
        caller: usize::MAX,
        gateway: None,
        begun: Duration::ZERO,
        ended: start.elapsed(),
        wait: Duration::ZERO,
        outcome,
    })
}

/// Calls each device once at a gateway, as soon as it can be reached. Returns all calls.
pub(crate) async fn reach(gateway: SocketAddr, keys: &[usize]) -> Result<Vec<Call>> {
    let mut calls = Vec::new();
    let start = Instant::now();
    let mut left = keys.to_vec();
    loop {
        let made = left.iter().map(|key| call_once(gateway, *key));
        let made: Vec<Call> = stream::iter(made).buffered(AT_ONCE).try_collect().await?;
        let failed = made.iter().filter(|call| call.outcome.is_err());
        left = failed.map(|call| call.key).collect();
        calls.extend(made);
        let Some(first) = left.first() else {
            return Ok(calls);
        };
        if start.elapsed() > MORE {
            let last = calls.last().map(|call| &call.outcome);
            bail!(
                "{} devices cannot be reached at {gateway}, among them {}: {last:?}",
                left.len(),
                key(*first)
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}
