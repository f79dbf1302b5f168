//! A link that fails on demand: a TCP proxy in user space for tests and benchmarks.
//!
//! What lives where: `gate` is where a freeze takes hold, `line` holds what is under way, `direction`
//! moves bytes one way, `connection` pairs two directions and ends them, `books` keeps the counts.
//!
//! Invariants:
//!
//! - Bytes arrive unchanged and in order, whatever the delay was when they came in; an end of the
//!   stream and a reset keep their place behind the bytes before them.
//! - Whatever passes on what an end did (accepting, reading, writing, shutting down) goes through
//!   the gate, so nothing moves any more once [`FaultProxy::freeze`] has returned. Orders to cut
//!   and to reset go past it.
//! - One task accepts and owns the tasks of the connections; when it goes, they go.

mod books;
mod connection;
mod direction;
mod gate;
mod line;
mod shared;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tonic::transport::Endpoint;

pub use self::books::{Traffic, Way};
use self::connection::Arrival;
use self::gate::Frozen;
use self::shared::{End, Settings, Shared};

/// How long accepting rests after the operating system refused to hand over a connection, as it
/// does while the process is out of descriptors. The connection waits in the kernel meanwhile.
const ACCEPT_RETRY: Duration = Duration::from_millis(10);

/// Stands between clients and a server, and can delay, freeze, cut and reset what passes.
///
/// Clients connect to [`address`](Self::address); each of their connections is carried to the
/// target of that moment over a connection of its own. Bytes, half-closes and resets pass in both
/// directions. It starts with no delay, and moving.
///
/// It works on sockets, not on packets, so the kernels at its sides see a healthy loopback
/// connection throughout: connecting takes no delay, acknowledgements and TCP's own keepalive
/// probes are answered even while it is [frozen](Self::freeze), and a sender's congestion control
/// never hears of the [delay](Self::set_delay).
///
/// It runs on the runtime it was started on. Dropping it ends its listener, its connections and
/// its tasks, as they are: they are gone as soon as that runtime gets round to it.
///
/// ```
/// # use std::time::Duration;
/// use tunnel_conformance::FaultProxy;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let server = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
/// let link = FaultProxy::to(server.local_addr()?).await;
/// link.set_delay(Duration::from_millis(50));
/// let client = tokio::net::TcpStream::connect(link.address()).await?;
/// link.wait_open(1).await;
/// link.reset();
/// link.wait_open(0).await;
/// # drop(client);
/// # Ok(())
/// # }
/// ```
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

impl FaultProxy {
    /// How many bytes of one connection can be under way in one direction: 64 MiB. A sender that
    /// has filled this meets back-pressure, whatever the reason: a receiver that does not read, or
    /// a delay so long that the link holds no more.
    pub const CAPACITY: usize = line::CAPACITY;

    /// Starts a proxy to this server, on a free port of the loopback interface.
    ///
    /// The server need not be there yet: connections are made as clients come.
    ///
    /// # Panics
    ///
    /// If no port is free, or outside a tokio runtime with I/O and time.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.expect("a port of the loopback interface is free");
        let address = listener.local_addr();
        let address = address.expect("a bound listener has an address");
        let shared = Arc::new(Shared::new(target));
        let accepting = tokio::spawn(accept(listener, shared.clone())).abort_handle();
        Self {
            address,
            shared,
            accepting,
        }
    }

    /// Where clients connect to. It stays the same for the life of the proxy.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as tonic wants it, with tonic's defaults.
    pub fn endpoint(&self) -> Endpoint {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address));
        endpoint.expect("a socket address makes a valid URI")
    }

    /// Where connections go that are accepted from now on; those that are open stay where they
    /// are. With another address, a server that was restarted elsewhere is still the same to its
    /// clients.
    ///
    /// With `None`, new connections are refused, as they also are when nobody listens at the
    /// target: a client's attempt succeeds or fails as the race goes, and what it has got is reset
    /// at once. Refused connections count as [accepted](Self::accepted), and never as
    /// [open](Self::open).
    pub fn set_target(&self, target: Option<SocketAddr>) {
        self.shared.settings().target = target;
    }

    /// How long bytes are under way, each way, that arrive from now on: a latency, not a limit on
    /// throughput. The default is zero.
    ///
    /// Nothing arrives sooner than that, and on a machine that is not busy it arrives within a
    /// millisecond or two after. Ends and resets take as long as bytes do. A shorter delay lets
    /// nothing overtake what is under way already, and does not hurry it.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.settings().delay = delay;
    }

    /// Stops everything, as if a cable was pulled out: once this has returned, no byte, end or
    /// reset moves in either direction. Nothing is closed and nothing is lost.
    ///
    /// What senders write waits in the buffers of the kernel, which take up to a few MiB. New
    /// connections are accepted by the kernel, wait there (up to 1024 of them), and are served and
    /// counted after the thaw.
    pub fn freeze(&self) {
        self.shared.gate.freeze(Frozen::Everything);
    }

    /// Stops one direction, as a congested or misconfigured network does: the other goes on. Takes
    /// the place of a freeze of everything or of the other direction; [`thaw`](Self::thaw) ends it.
    pub fn freeze_way(&self, way: Way) {
        self.shared.gate.freeze(Frozen::OneWay(way));
    }

    /// Ends a freeze: everything goes on where it stopped. Bytes whose delay has passed meanwhile
    /// arrive at once.
    pub fn thaw(&self) {
        self.shared.gate.thaw();
    }

    /// Ends all connections that were accepted until now in order: both sides are told that the
    /// stream is over (FIN). What is under way is lost. Works while frozen too.
    ///
    /// It takes effect soon after this returned; [`wait_open(0)`](Self::wait_open) waits for it.
    /// What an end sends afterwards, or had sent and was not read, goes nowhere: each of the
    /// sockets is held until its own end is closed, for closing it earlier would be a reset.
    pub fn cut(&self) {
        self.shared.orders.send_replace(Some(End::Cut));
    }

    /// Ends all connections that were accepted until now abruptly: both sides are told that the
    /// connection was reset (RST). What is under way is lost. Works while frozen too, and on those
    /// that were [cut](Self::cut) and whose ends have not closed.
    ///
    /// It takes effect soon after this returned; [`wait_open(0)`](Self::wait_open) waits for it.
    pub fn reset(&self) {
        self.shared.orders.send_replace(Some(End::Reset));
    }

    /// How many connections it has accepted so far, the refused ones included.
    pub fn accepted(&self) -> usize {
        self.shared.books.accepted()
    }

    /// How many connections are open: they have reached their target, and neither were they ended
    /// here nor have both of their ends closed.
    pub fn open(&self) -> usize {
        self.shared.books.open()
    }

    /// When each connection was accepted, the refused ones included, in order.
    pub fn arrivals(&self) -> Vec<Instant> {
        self.shared.books.arrivals()
    }

    /// Waits until at least so many connections were accepted.
    pub async fn wait_accepted(&self, count: usize) {
        self.shared.books.wait_accepted(count).await;
    }

    /// Waits until exactly so many connections are open.
    pub async fn wait_open(&self, count: usize) {
        self.shared.books.wait_open(count).await;
    }

    /// How many bytes went that way so far, in all connections there were. Exact: every byte that
    /// an end has seen is counted.
    pub fn traffic(&self, way: Way) -> Traffic {
        self.shared.gate.settle();
        self.shared.books.meter(way).read()
    }

    /// Waits until the traffic that way is as wanted, and gives it.
    pub async fn wait_traffic(&self, way: Way, wanted: impl FnMut(&Traffic) -> bool) -> Traffic {
        self.shared.books.meter(way).until(wanted).await
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl fmt::Debug for FaultProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { target, delay } = *self.shared.settings();
        f.debug_struct("FaultProxy")
            .field("address", &self.address)
            .field("target", &target)
            .field("delay", &delay)
            .field("frozen", &self.shared.gate.frozen())
            .field("accepted", &self.accepted())
            .field("open", &self.open())
            .field("to_target", &self.traffic(Way::ToTarget))
            .field("from_target", &self.traffic(Way::FromTarget))
            .finish_non_exhaustive()
    }
}

/// Takes note of a connection. From here on it heeds orders and has its target; only then is
/// it counted, so that whoever has waited for it finds it so.
fn arrived(shared: &Shared, near: TcpStream) -> Arrival {
    let arrival = Arrival {
        near,
        target: shared.settings().target,
        orders: shared.orders.subscribe(),
    };
    shared.books.arrived();
    arrival
}

/// Accepts connections and owns their tasks.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let (near, _) = listener.accept().await?;
            std::io::Result::Ok(arrived(&shared, near))
        };
        tokio::select! {
            arrival = shared.gate.pass(None, next) => match arrival {
                Ok(arrival) => drop(connections.spawn(connection::serve(arrival, shared.clone()))),
                Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}
