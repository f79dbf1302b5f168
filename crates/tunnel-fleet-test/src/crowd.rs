//! Many devices in one process. Their gateways are behind one balancer, as it were: each attempt goes to the next gateway
//! that accepts a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use example_support::test::echo_service_server::EchoServiceServer;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint, Error};
use tunnel_client::{Gateway, LinksHandle, ReverseTunnelServer, endpoint_for_tunnels};

use crate::service::{Log, Service};

/// Devices, which run until the process ends.
#[derive(Default)]
pub(crate) struct Crowd {
    log: Log,
    running: Vec<LinksHandle>,
    attempts: Arc<AtomicUsize>,
}

impl Crowd {
    /// Starts a device with the default backoff.
    pub(crate) fn begin(&mut self, device: usize, tunnels: usize, gateways: &[&str]) -> Result<()> {
        let endpoints = gateways
            .iter()
            .map(|gateway| Endpoint::from_shared(format!("http://{gateway}")))
            .map(|endpoint| endpoint.map(endpoint_for_tunnels));
        let endpoints: Arc<[Endpoint]> = endpoints.collect::<Result<_, _>>()?;
        // The first tunnels of a device go to different gateways.
        let next = Arc::new(AtomicUsize::new(device));
        let attempts = self.attempts.clone();
        let gateway = Gateway::connect_with("any gateway", move || {
            attempts.fetch_add(1, Ordering::Relaxed);
            let first = next.fetch_add(1, Ordering::Relaxed);
            connect(endpoints.clone(), first)
        });
        let key = crate::devices::key(device);
        let mut metadata = MetadataMap::new();
        metadata.insert("tunnel-key", key.parse()?);
        let service = Service {
            key,
            session: "1".to_owned(),
            log: self.log.clone(),
        };
        let device = ReverseTunnelServer::builder(gateway)
            .tunnels_per_gateway(tunnels)
            .metadata(metadata)
            .add_service(EchoServiceServer::new(service))
            .build();
        self.running.push(device.handle());
        tokio::spawn(device.run());
        Ok(())
    }

    /// The open tunnels, and the attempts to open one.
    pub(crate) fn count(&self) -> (usize, usize) {
        let open = self
            .running
            .iter()
            .map(|device| *device.open_tunnels().borrow());
        (open.sum(), self.attempts.load(Ordering::Relaxed))
    }
}

/// Connects to the first of all gateways that accepts, from one on.
async fn connect(endpoints: Arc<[Endpoint]>, first: usize) -> Result<Channel, Error> {
    let at = |step: usize| &endpoints[(first + step) % endpoints.len()];
    for step in 0..endpoints.len() - 1 {
        if let Ok(channel) = at(step).connect().await {
            return Ok(channel);
        }
    }
    at(endpoints.len() - 1).connect().await
}
