//! A device: it dials the gateway, keeps its tunnels up, and works when it is called.

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

/// How many tunnels a device keeps up: where one does not take a call the other may.
pub(crate) const TUNNELS: usize = 2;

/// The metadata in which a device says who it is.
pub(crate) const DEVICE_ID: &str = "device-id";

/// How long calls in flight may take when a device is to end in order.
const GRACE: Duration = Duration::from_secs(30);

/// A device on a machine of its own.
#[derive(Debug)]
pub(crate) struct Device {
    machine: Machine,
    handle: LinksHandle,
}

impl Device {
    /// Starts a device, which keeps tunnels to the gateway up from then on.
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

    /// Ends in order: calls in flight finish, and the gateway is told.
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

/// Short waits, so that the show is short. Devices in the field keep the default,
/// lest all of them come back in the same moment.
fn impatience() -> Backoff {
    Backoff::default()
        .initial(Duration::from_millis(20))
        .cap(Duration::from_millis(500))
        .healthy_after(Duration::ZERO)
}

/// What a device does when it is called. An ordinary service of tonic.
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
