//! A gateway, its devices and its forward clients. Each has its own simulated machine, and the
//! links between them can fail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use example_support::listen::Listener;
use example_support::machine::Machine;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::service::{InterceptorLayer, Routes};
use tonic::transport::Server;
use tonic::{Request, Status};
use tunnel_client::{
    Backoff, ForwardTunnel, LinksHandle, ReverseTunnelServer, TunnelChannel, endpoint_for_tunnels,
};
use tunnel_conformance::service::scripted;
use tunnel_conformance::{FaultProxy, Probe};
use tunnel_server::{AffinityKey, Opening, TunnelServiceHandler, server_for_tunnels};

use super::books::Books;

/// The metadata key that names a device.
const KEY: &str = "device";

/// The metadata key of a call's number.
pub(crate) const NUMBER: &str = "x-number";

/// The number of tunnels of each device.
const TUNNELS: usize = 2;

/// The number of forward clients.
const CALLERS: usize = 3;

/// The polling interval for conditions without an event.
const LOOK: Duration = Duration::from_millis(20);

/// The number of consecutive polls that must find every tunnel up.
const STEADY: u32 = 50;

/// The gateway, the devices and the forward clients.
pub(crate) struct World {
    gateway: Option<Machine>,
    /// The current gateway, for callers. `None` while there is none.
    desk: watch::Sender<Option<Desk>>,
    pub(crate) devices: Vec<Device>,
    pub(crate) forward: Vec<Forward>,
    books: Arc<Books>,
}

/// A gateway, as seen by its callers.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) handler: TunnelServiceHandler,
    /// Cancelled when the gateway has been killed.
    pub(crate) gone: CancellationToken,
    address: SocketAddr,
}

pub(crate) struct Device {
    pub(crate) key: String,
    pub(crate) link: FaultProxy,
    machine: Option<(Machine, LinksHandle)>,
}

/// A client that holds a forward tunnel.
pub(crate) struct Forward {
    pub(crate) link: FaultProxy,
    pub(crate) tunnel: watch::Receiver<Option<TunnelChannel>>,
    machine: Machine,
}

impl World {
    pub(crate) async fn start(devices: usize, books: &Arc<Books>) -> Result<Self> {
        let (machine, desk) = gateway(books).await?;
        let address = desk.address;
        let mut world = Self {
            gateway: Some(machine),
            desk: watch::Sender::new(Some(desk)),
            devices: Vec::new(),
            forward: Vec::new(),
            books: books.clone(),
        };
        for number in 0..devices {
            let mut device = Device {
                key: format!("device-{number}"),
                link: FaultProxy::to(address).await,
                machine: None,
            };
            device.start(books)?;
            world.devices.push(device);
        }
        for _ in 0..CALLERS {
            world.forward.push(Forward::start(address).await?);
        }
        Ok(world)
    }

    pub(crate) fn desk(&self) -> watch::Receiver<Option<Desk>> {
        self.desk.subscribe()
    }

    /// Waits until every tunnel has been up for a moment. A shorter look could miss a loss that is
    /// not noticed yet.
    pub(crate) async fn up(&self) {
        let mut looks = 0;
        while looks < STEADY {
            let desk = self.desk.borrow().clone();
            let up = desk.is_some_and(|desk| {
                let of = |device: &Device| desk.handler.key_as_channel(device.key.as_str());
                let full = |device| of(device).tunnels().len() == TUNNELS;
                let open = |forward: &Forward| forward.is_ready();
                let tunnels = TUNNELS * self.devices.len() + self.forward.len();
                self.devices.iter().all(full)
                    && self.forward.iter().all(open)
                    && desk.handler.tunnels().len() == tunnels
            });
            looks = if up { looks + 1 } else { 0 };
            sleep(LOOK).await;
        }
    }

    /// The number of tasks on all machines.
    pub(crate) fn tasks(&self) -> usize {
        let devices = self
            .devices
            .iter()
            .filter_map(|device| device.machine.as_ref());
        let devices = devices.map(|(machine, _)| machine.tasks());
        let forward = self.forward.iter().map(|forward| forward.machine.tasks());
        let gateway = self.gateway.as_ref().map_or(0, Machine::tasks);
        gateway + devices.sum::<usize>() + forward.sum::<usize>()
    }

    /// Kills the gateway, as a power cut does, and starts another one at a new address after
    /// `pause`.
    pub(crate) async fn restart_gateway(&mut self, pause: Duration) -> Result<()> {
        if let Some(desk) = self.desk.send_replace(None) {
            desk.gone.cancel();
        }
        if let Some(machine) = self.gateway.take() {
            machine.cut().await?;
        }
        sleep(pause).await;
        let (machine, desk) = gateway(&self.books).await?;
        for link in self.links() {
            link.set_target(Some(desk.address));
        }
        self.gateway = Some(machine);
        self.desk.send_replace(Some(desk));
        Ok(())
    }

    /// Kills a device, as a power cut does, and starts it again after `pause`.
    pub(crate) async fn restart_device(&mut self, which: usize, pause: Duration) -> Result<()> {
        let device = &mut self.devices[which];
        if let Some((machine, _)) = device.machine.take() {
            machine.cut().await?;
        }
        sleep(pause).await;
        device.start(&self.books)
    }

    /// Drains a device, and starts it again.
    pub(crate) async fn drain_device(&mut self, which: usize, grace: Duration) -> Result<()> {
        let device = &mut self.devices[which];
        if let Some((machine, handle)) = device.machine.take() {
            handle.drain(grace).await;
            machine.cut().await?;
        }
        device.start(&self.books)
    }

    /// All links, the devices' first.
    pub(crate) fn links(&self) -> Vec<&FaultProxy> {
        let devices = self.devices.iter().map(|device| &device.link);
        devices
            .chain(self.forward.iter().map(|f| &f.link))
            .collect()
    }
}

/// An interceptor that records every call in the books before its handler.
fn entering(
    books: &Arc<Books>,
) -> impl Fn(Request<()>) -> Result<Request<()>, Status> + Clone + use<> {
    let books = books.clone();
    move |request: Request<()>| {
        let number = request.metadata().get(NUMBER);
        let number = number.and_then(|number| number.to_str().ok()?.parse().ok());
        books.reached(number.ok_or_else(|| Status::invalid_argument("a call without number"))?);
        Ok(request)
    }
}

async fn gateway(books: &Arc<Books>) -> Result<(Machine, Desk)> {
    let machine = Machine::start("gateway")?;
    let listening = async { Listener::bind(&"127.0.0.1:0".parse()?).await };
    let listener = machine
        .run(listening)
        .await
        .context("the gateway did not start")??;
    let address = SocketAddr::from(([127, 0, 0, 1], listener.port()));
    let handler = TunnelServiceHandler::builder()
        .affinity_key(|opening: &Opening| opening.metadata_str(KEY).map(AffinityKey::from))
        .layer(InterceptorLayer::new(entering(books)))
        .add_service(scripted(&Probe::default()))
        .build();
    let routes = Routes::new(handler.service());
    let server = server_for_tunnels(Server::builder()).add_routes(routes);
    machine.run(server.serve_with_incoming(listener.incoming()));
    let desk = Desk {
        handler,
        gone: CancellationToken::new(),
        address,
    };
    Ok((machine, desk))
}

impl Device {
    fn start(&mut self, books: &Arc<Books>) -> Result<()> {
        let mut metadata = MetadataMap::new();
        metadata.insert(KEY, self.key.parse()?);
        let server = ReverseTunnelServer::builder(self.link.endpoint())
            .metadata(metadata)
            .tunnels_per_gateway(TUNNELS)
            .backoff(impatience())
            .layer(InterceptorLayer::new(entering(books)))
            .add_service(scripted(&Probe::default()))
            .build();
        let handle = server.handle();
        let machine = Machine::start(&self.key)?;
        machine.run(server.run());
        self.machine = Some((machine, handle));
        Ok(())
    }
}

/// Short backoff delays, so that there is time for many faults.
fn impatience() -> Backoff {
    Backoff::default()
        .initial(Duration::from_millis(20))
        .cap(Duration::from_millis(500))
        .healthy_after(Duration::ZERO)
}

impl Forward {
    async fn start(address: SocketAddr) -> Result<Self> {
        let link = FaultProxy::to(address).await;
        let machine = Machine::start("caller")?;
        let (open, tunnel) = watch::channel(None);
        let endpoint = endpoint_for_tunnels(link.endpoint());
        machine.run(async move {
            loop {
                let opened = async {
                    let channel = endpoint.connect().await.ok()?;
                    ForwardTunnel::new(channel).open().await.ok()
                };
                if let Some(tunnel) = opened.await {
                    open.send_replace(Some(tunnel.clone()));
                    tunnel.ended().await;
                    open.send_replace(None);
                }
                sleep(Duration::from_millis(100)).await;
            }
        });
        Ok(Self {
            link,
            tunnel,
            machine,
        })
    }

    fn is_ready(&self) -> bool {
        self.tunnel
            .borrow()
            .as_ref()
            .is_some_and(TunnelChannel::is_ready)
    }
}
