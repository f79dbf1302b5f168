//! A TCP proxy in user space that simulates network faults, for tests and benchmarks.
//!
//! - Bytes arrive unchanged and in order, even if the delay changes. The end of a stream and a
//!   reset stay behind the bytes before them.
//! - Accepting, reading, writing and shutting down all go through the `gate`, so nothing moves
//!   after [`FaultProxy::freeze`] has returned. Cuts and resets bypass the gate.
//! - One task accepts connections and owns their tasks; when it ends, they end.
//!
//! `line` holds the bytes in flight, `direction` moves bytes in one direction, `connection` owns
//! two directions and ends them, and `books` counts.

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

/// The pause after an error of `accept`, for example when the process has no free descriptors. The
/// connection waits in the kernel meanwhile.
const ACCEPT_RETRY: Duration = Duration::from_millis(10);

/// A TCP proxy between clients and a server that can delay, freeze, cut and reset connections.
///
/// Clients connect to [`address`](Self::address). The proxy opens a connection to its current
/// target for each client connection, and forwards bytes, half-closes and resets in both
/// directions. It starts without a delay and not frozen.
///
/// The proxy works on sockets, not on packets, so both kernels see a healthy loopback connection:
/// connecting is not delayed, acknowledgements and TCP keepalive probes are answered even while the
/// proxy is [frozen](Self::freeze), and the [delay](Self::set_delay) does not affect congestion
/// control.
///
/// The proxy runs on the runtime on which it was started. Dropping it ends its listener, its
/// connections and its tasks; they end when the runtime next polls them.
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
    /// The most bytes of a connection in flight in one direction: 64 MiB. Beyond it the sender
    /// meets back-pressure, either because the receiver does not read or because the delay is long.
    pub const CAPACITY: usize = line::CAPACITY;

    /// Starts a proxy for this server, on a free port of the loopback interface.
    ///
    /// The server need not run yet: the proxy connects to it when a client connects.
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

    /// The address for clients. It does not change.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A tonic endpoint for [`address`](Self::address), with tonic's defaults.
    pub fn endpoint(&self) -> Endpoint {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address));
        endpoint.expect("a socket address makes a valid URI")
    }

    /// Sets the target of new connections. Open connections keep their target. So clients can keep
    /// their address when a server restarts at another address.
    ///
    /// With `None`, or if no program listens at the target, new connections are refused: connecting
    /// may succeed at first, but the connection is reset at once. Refused connections count as
    /// [accepted](Self::accepted), and never as [open](Self::open).
    pub fn set_target(&self, target: Option<SocketAddr>) {
        self.shared.settings().target = target;
    }

    /// Sets the latency in each direction for bytes that enter the proxy from now on. It does not
    /// limit the throughput. Default zero.
    ///
    /// Bytes never arrive earlier, and on an idle machine within a millisecond or two after it.
    /// Ends of streams and resets are delayed like bytes. Bytes in flight keep their old delay, and
    /// later bytes do not overtake them.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.settings().delay = delay;
    }

    /// Freezes the link, as if a cable was unplugged: after this has returned, no byte, end of
    /// stream or reset moves in either direction. Nothing is closed and nothing is lost.
    ///
    /// Bytes that senders write wait in the kernel's buffers, up to a few MiB. The kernel accepts
    /// up to 1,024 new connections, which are served and counted after the thaw.
    pub fn freeze(&self) {
        self.shared.gate.freeze(Frozen::Everything);
    }

    /// Freezes one direction, as a congested or misconfigured network does. This replaces an
    /// earlier freeze of the whole link or of the other direction. [`thaw`](Self::thaw) ends it.
    pub fn freeze_way(&self, way: Way) {
        self.shared.gate.freeze(Frozen::OneWay(way));
    }

    /// Ends a freeze. Bytes whose delay has passed meanwhile arrive at once.
    pub fn thaw(&self) {
        self.shared.gate.thaw();
    }

    /// Ends all accepted connections cleanly: both sides receive the end of the stream (FIN). Bytes
    /// in flight are lost. This works while frozen too.
    ///
    /// It takes effect soon after this has returned; [`wait_open(0)`](Self::wait_open) waits for
    /// it. Bytes that an end sends afterwards are discarded. Each socket stays open until its peer
    /// closes it, because closing it earlier would be a reset.
    pub fn cut(&self) {
        self.shared.orders.send_replace(Some(End::Cut));
    }

    /// Resets all accepted connections: both sides receive a reset (RST). Bytes in flight are lost.
    /// This works while frozen too, and for [cut](Self::cut) connections that are not closed yet.
    ///
    /// It takes effect soon after this has returned; [`wait_open(0)`](Self::wait_open) waits for
    /// it.
    pub fn reset(&self) {
        self.shared.orders.send_replace(Some(End::Reset));
    }

    /// The number of connections accepted so far, including refused ones.
    pub fn accepted(&self) -> usize {
        self.shared.books.accepted()
    }

    /// The number of open connections: connected to their target, and neither ended by the proxy
    /// nor closed by both ends.
    pub fn open(&self) -> usize {
        self.shared.books.open()
    }

    /// The times at which connections were accepted, in order, including refused ones.
    pub fn arrivals(&self) -> Vec<Instant> {
        self.shared.books.arrivals()
    }

    /// Waits until at least `count` connections were accepted.
    pub async fn wait_accepted(&self, count: usize) {
        self.shared.books.wait_accepted(count).await;
    }

    /// Waits until exactly `count` connections are open.
    pub async fn wait_open(&self, count: usize) {
        self.shared.books.wait_open(count).await;
    }

    /// The bytes that moved in this direction so far, on all connections. The count is exact: it
    /// includes every byte that an end has received.
    pub fn traffic(&self, way: Way) -> Traffic {
        self.shared.gate.settle();
        self.shared.books.meter(way).read()
    }

    /// Waits until the traffic in this direction meets a condition, and returns it.
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

/// Registers a connection: subscribes it to orders, sets its target and only then counts it. So a
/// test that waited for the count can rely on both.
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
