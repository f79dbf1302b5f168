//! The callers: each makes one call after another, of all kinds. There are callers on every path.

use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tunnel_client::{TunnelChannel, WhenNoTunnel};
use tunnel_conformance::client::{Outcome, call, open};
use tunnel_conformance::payload::{pattern, requests};
use tunnel_conformance::proto::Script;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::{Client, Kind, TestChannel};

use super::books::{Books, Entry, Fate};
use super::world::{Desk, NUMBER, World};

/// The number of callers on each path.
const CALLERS: usize = 3;

/// The number of callers in a brownout.
const BROWNED_OUT: usize = 50;

/// The deadline of a call, including the time to wait for new tunnels.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long after its deadline a call counts as hanging. The time allows for a busy machine.
pub(crate) const HANGS: Duration = Duration::from_secs(10);

/// The number of messages of a stream.
const MESSAGES: u64 = 10;

/// The path from a caller to a handler.
#[derive(Clone)]
enum Path {
    /// By the key of a device.
    Key(watch::Receiver<Option<Desk>>, String),
    /// To any device.
    Any(watch::Receiver<Option<Desk>>),
    /// Through a forward tunnel.
    Forward(watch::Receiver<Option<TunnelChannel>>),
}

/// All callers.
pub(crate) struct Callers {
    working: JoinSet<()>,
    stop: CancellationToken,
}

impl Callers {
    pub(crate) fn start(world: &World, books: &Arc<Books>) -> Self {
        let keys = world.devices.iter().map(|device| device.key.clone());
        let mut paths: Vec<_> = keys.map(|key| Path::Key(world.desk(), key)).collect();
        paths.push(Path::Any(world.desk()));
        let forward = world.forward.iter().map(|forward| forward.tunnel.clone());
        paths.extend(forward.map(Path::Forward));
        let mut working = JoinSet::new();
        let stop = CancellationToken::new();
        for number in 0..CALLERS * paths.len() {
            let caller = Caller {
                path: paths[number % paths.len()].clone(),
                books: books.clone(),
                random: fastrand::Rng::with_seed(number as u64),
            };
            working.spawn(caller.work(stop.clone()));
        }
        Self { working, stop }
    }

    /// Stops making calls and waits for those in flight.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.working.join_all().await;
    }
}

/// Runs many callers on one path that give up on a slow handler. A brownout does not count as a
/// fault: all other calls must be answered during it.
pub(crate) async fn brownout(world: &World, books: &Arc<Books>, device: usize, time: Duration) {
    let stop = CancellationToken::new();
    let mut path = Path::Key(world.desk(), world.devices[device].key.clone());
    let Some((client, _)) = path.client(&stop).await else {
        return;
    };
    let mut callers = JoinSet::new();
    for _ in 0..BROWNED_OUT {
        let (client, books, stop) = (client.clone(), books.clone(), stop.clone());
        callers.spawn(async move {
            while !stop.is_cancelled()
                && let Some(entry) = books.begin()
            {
                let patience = Duration::from_millis(10);
                let fate = match entry.number % 2 {
                    0 => dropped(&client, Kind::Unary, entry.number, patience).await,
                    _ => late(&client, Kind::Unary, entry.number, patience).await,
                };
                books.end(&entry, fate);
            }
        });
    }
    tokio::time::sleep(time).await;
    stop.cancel();
    callers.join_all().await;
}

struct Caller {
    path: Path,
    books: Arc<Books>,
    random: fastrand::Rng,
}

impl Caller {
    async fn work(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let Some((client, gone)) = self.path.client(&stop).await else {
                break;
            };
            let Some(entry) = self.books.begin() else {
                break;
            };
            let number = entry.number;
            let call = self.one(&client, &entry);
            let fate = tokio::select! {
                fate = timeout(DEADLINE + HANGS, call) => fate.unwrap_or(Fate::Hanging),
                () = gone.cancelled() => Fate::Failed("the gateway was killed".to_owned()),
            };
            if matches!(fate, Fate::Hanging) {
                eprintln!("call {number} hangs");
            }
            self.books.end(&entry, fate);
            tokio::time::sleep(Duration::from_millis(self.random.u64(0..20))).await;
        }
    }

    /// Makes one call. Its kind, size and ending are random.
    fn one(&mut self, client: &Client, entry: &Entry) -> impl Future<Output = Fate> + use<> {
        let kind = Kind::ALL[self.random.usize(0..4)];
        let size = [0, 10, 1_000, 20_000, 200_000][self.random.usize(0..5)];
        let manner = self.random.u8(0..10);
        let patience = Duration::from_millis(self.random.u64(0..30));
        let (client, number) = (client.clone(), entry.number);
        async move {
            match manner {
                0 => dropped(&client, kind, number, patience).await,
                1 => late(&client, kind, number, patience).await,
                _ => whole(&client, kind, number, size).await,
            }
        }
    }
}

impl Path {
    /// Waits for a tunnel or a gateway. Returns a client and a token that is cancelled when the
    /// client can no longer be used.
    async fn client(&mut self, stop: &CancellationToken) -> Option<(Client, CancellationToken)> {
        let there = async {
            match self {
                Self::Key(desks, key) => {
                    let desk = some(desks).await?;
                    let channel = desk.handler.key_as_channel(key.as_str());
                    let channel = channel.when_no_tunnel(WhenNoTunnel::Wait);
                    Some((TestChannel::new(channel), desk.gone))
                }
                Self::Any(desks) => {
                    let desk = some(desks).await?;
                    let channel = desk.handler.as_channel().when_no_tunnel(WhenNoTunnel::Wait);
                    Some((TestChannel::new(channel), desk.gone))
                }
                Self::Forward(tunnels) => {
                    let tunnel = some(tunnels).await?;
                    Some((TestChannel::new(tunnel), CancellationToken::new()))
                }
            }
        };
        let (channel, gone) = tokio::select! {
            there = there => there?,
            () = stop.cancelled() => return None,
        };
        Some((TestServiceClient::new(channel), gone))
    }
}

async fn some<T: Clone>(watched: &mut watch::Receiver<Option<T>>) -> Option<T> {
    watched.wait_for(Option::is_some).await.ok()?.clone()
}

type Requests =
    tonic::Request<stream::Iter<std::vec::IntoIter<tunnel_conformance::proto::Request>>>;

fn numbered(script: &Script, number: u64, size: usize, count: u64) -> Requests {
    let messages = requests(number, count, size);
    let mut request = script.request(stream::iter(messages));
    let value = number.to_string().parse();
    request
        .metadata_mut()
        .insert(NUMBER, value.expect("a number is plain text"));
    request.set_timeout(DEADLINE);
    request
}

/// Makes a call that must be answered with its own messages.
async fn whole(client: &Client, kind: Kind, number: u64, size: usize) -> Fate {
    let count = kind.requests(MESSAGES);
    let script = match kind {
        Kind::ClientStream => Script::named("soak").receive_all().summarize(),
        Kind::ServerStream => Script::named("soak").send(MESSAGES, size, number),
        _ => Script::named("soak").echo_all(),
    };
    let outcome = call(client, kind, numbered(&script, number, size, count)).await;
    match &outcome.end {
        Err(status) => failed(status),
        Ok(_) => match check(kind, number, size, &outcome) {
            Ok(()) => Fate::Answered,
            Err(why) => Fate::Wrong(format!("{kind:?} answered wrongly: {why}")),
        },
    }
}

fn check(kind: Kind, number: u64, size: usize, outcome: &Outcome) -> Result<(), String> {
    let expected = kind.responses(MESSAGES);
    let count = outcome.messages.len() as u64;
    if count != expected {
        return Err(format!("{count} messages instead of {expected}"));
    }
    if kind == Kind::ClientStream {
        let received = outcome.messages[0]
            .received
            .map(|received| received.messages);
        return match received {
            Some(MESSAGES) => Ok(()),
            other => Err(format!("the handler received {other:?} messages")),
        };
    }
    for (seed, message) in (number..).zip(&outcome.messages) {
        if message.payload != pattern(seed, size) {
            return Err("another payload".to_owned());
        }
    }
    Ok(())
}

/// Makes a call and drops it before the handler answers.
async fn dropped(client: &Client, kind: Kind, number: u64, patience: Duration) -> Fate {
    let script = Script::named("slow").pend();
    let request = numbered(&script, number, 10, 1);
    let call = async { open(client, kind, request).await.map(drop) };
    match timeout(patience, call).await {
        Err(_) => Fate::GivenUp,
        Ok(Ok(())) => Fate::Wrong("a handler that never answers did".to_owned()),
        Ok(Err(status)) => failed(&status),
    }
}

/// Makes a call whose deadline expires before the handler answers.
async fn late(client: &Client, kind: Kind, number: u64, patience: Duration) -> Fate {
    let script = Script::named("slow").pend();
    let mut request = numbered(&script, number, 10, 1);
    request.set_timeout(patience + Duration::from_millis(1));
    match call(client, kind, request).await.end {
        Err(status) if status.code() == Code::DeadlineExceeded => Fate::GivenUp,
        Err(status) => failed(&status),
        Ok(_) => Fate::Wrong("a handler that never answers did".to_owned()),
    }
}

fn failed(status: &Status) -> Fate {
    let words = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded => Fate::Failed(words),
        // A failed link or process must not cause any other code.
        _ => Fate::Wrong(words),
    }
}
