//! A device: dials the gateway, keeps its tunnels up, and serves calls.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use example_support::address::Address;
use example_support::machine::Machine;
use tokio::time::sleep;
use tonic::metadata::MetadataMap;
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};
use tunnel_client::{Backoff, LinksHandle, ReverseTunnelServer};

use crate::books::Books;
use crate::test::device_service_server::{DeviceService, DeviceServiceServer};
use crate::test::{WorkRequest, WorkResponse};

/// How many tunnels a device keeps up. If one does not take a call, the other may.
pub(crate) const TUNNELS: usize = 2;

/// The metadata key with the device's name.
pub(crate) const DEVICE_ID: &str = "device-id";

/// The time that calls in flight have when a device shuts down.
const GRACE: Duration = Duration::from_secs(30);

/// A device, on its own machine.
#[derive(Debug)]
pub(crate) struct Device {
    machine: Machine,
    handle: LinksHandle,
}

impl Device {
    /// Starts a device, which keeps tunnels to the gateway up.
    pub(crate) fn start(key: &str, gateway: &Address, books: &Arc<Books>) -> Result<Self> {
        let work = Work {
            device: key.to_owned(),
            books: books.clone(),
        };
        let endpoint = Endpoint::from_shared(gateway.url())?;
        let server = ReverseTunnelServer::builder(endpoint)
            .metadata(identity(key)?)
            .tunnels_per_gateway(TUNNELS)
            .backoff(impatience())
            .add_service(DeviceServiceServer::new(work))
            .build();
        let handle = server.handle();
        let machine = Machine::start(key)?;
        machine.run(server.run());
        Ok(Self { machine, handle })
    }

    /// Cuts the power.
    pub(crate) async fn kill(self) -> Result<()> {
        self.machine.cut().await
    }

    /// Shuts down gracefully: calls in flight finish, and the gateway gets a drain notice.
    pub(crate) async fn drain(self) -> Result<()> {
        self.handle.drain(GRACE).await;
        self.machine.cut().await
    }
}

fn identity(key: &str) -> Result<MetadataMap> {
    let mut metadata = MetadataMap::new();
    metadata.insert(DEVICE_ID, key.parse().context("a key is plain text")?);
    Ok(metadata)
}

/// Short waits, so that the example is short. Real devices should keep the default,
/// so that they do not all come back at once.
fn impatience() -> Backoff {
    Backoff::default()
        .initial(Duration::from_millis(20))
        .cap(Duration::from_millis(500))
        .healthy_after(Duration::ZERO)
}

/// The device's service: an ordinary tonic service.
struct Work {
    device: String,
    books: Arc<Books>,
}

#[tonic::async_trait]
impl DeviceService for Work {
    async fn work(&self, request: Request<WorkRequest>) -> Result<Response<WorkResponse>, Status> {
        let WorkRequest {
            number,
            milliseconds,
        } = request.into_inner();
        self.books.enter(number);
        sleep(Duration::from_millis(milliseconds.into())).await;
        Ok(Response::new(WorkResponse {
            number,
            device: self.device.clone(),
        }))
    }
}
