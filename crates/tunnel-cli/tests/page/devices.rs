//! Devices in this process, and the admin API of their gateway.

use std::time::Duration;

use tokio::task::JoinHandle;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Streaming};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tunnel_client::{Backoff, LinksHandle, ReverseTunnelServer, endpoint_for_tunnels};

use crate::api;
use crate::api::admin_client::AdminClient;
use crate::browser::until_equal;
use crate::programs::{Gateway, plaintext};

/// A device with the health service. It leaves when it is dropped.
pub(crate) struct Device(JoinHandle<()>);

impl Drop for Device {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts a device that keeps a tunnel to a gateway.
pub(crate) fn device(gateway: &Gateway, key: &str) -> Device {
    start(gateway, key).0
}

/// Starts a device, and waits until it is connected.
pub(crate) async fn connected(gateway: &Gateway, key: &str) -> Device {
    let (device, handle) = start(gateway, key);
    handle.connected().await.expect("it runs");
    device
}

fn start(gateway: &Gateway, key: &str) -> (Device, LinksHandle) {
    let mut metadata = MetadataMap::new();
    metadata.insert("tunnel-key", key.parse().expect("legal"));
    metadata.insert("tunnel-label-site", "north".parse().expect("legal"));
    metadata.insert("secret", "hidden-from-the-page".parse().expect("legal"));
    let (_reporter, health) = tonic_health::server::health_reporter();
    let soon = Duration::from_millis(20);
    let server = ReverseTunnelServer::builder(endpoint_for_tunnels(plaintext(gateway.agents)))
        .metadata(metadata)
        .backoff(Backoff::default().initial(soon).cap(soon).refused_cap(soon))
        .add_service(health)
        .build();
    let handle = server.handle();
    let device = Device(tokio::spawn(async move {
        // It ends with the test.
        let _ = server.run().await;
    }));
    (device, handle)
}

/// The admin API over gRPC.
#[derive(Clone)]
pub(crate) struct Api(AdminClient<Channel>);

impl Api {
    pub(crate) fn of(gateway: &Gateway) -> Self {
        Self(AdminClient::new(plaintext(gateway.admin).connect_lazy()))
    }

    /// All devices whose keys match a glob.
    pub(crate) async fn list(&self, filter: &str) -> Vec<api::Device> {
        let request = api::ListRequest {
            page_size: 1000,
            filter: filter.to_owned(),
            ..api::ListRequest::default()
        };
        let listed = self.0.clone().list(request).await.expect("legal");
        listed.into_inner().devices
    }

    /// The device with a key.
    pub(crate) async fn device(&self, key: &str) -> Option<api::Device> {
        let devices = self.list("").await;
        devices.into_iter().find(|device| device.key == key)
    }

    pub(crate) async fn stats(&self) -> api::StatsResponse {
        let stats = self.0.clone().stats(api::StatsRequest {}).await;
        stats.expect("it answers").into_inner()
    }

    /// How far the drain is.
    pub(crate) async fn drain(&self) -> api::DrainResponse {
        let check = api::DrainRequest {
            check: true,
            timeout: None,
        };
        let drain = self.0.clone().drain(check).await;
        drain.expect("it answers").into_inner()
    }

    /// Waits until a device has this state.
    pub(crate) async fn until(&self, key: &str, state: api::State) {
        until_equal(async || {
            let device = self.device(key).await;
            (device.map(|device| device.state()), Some(state))
        })
        .await;
    }

    /// Starts devices and waits until they are connected.
    pub(crate) async fn devices(&self, gateway: &Gateway, keys: &[&str]) -> Vec<Device> {
        let devices = keys.iter().map(|key| device(gateway, key)).collect();
        for key in keys {
            self.until(key, api::State::Connected).await;
        }
        devices
    }
}

fn request(key: &str) -> Request<HealthCheckRequest> {
    let mut request = Request::new(HealthCheckRequest::default());
    let key = key.parse().expect("legal");
    request.metadata_mut().insert("tunnel-key", key);
    request
}

/// Calls a device once.
pub(crate) async fn call(gateway: &Gateway, key: &str) {
    let mut client = HealthClient::new(gateway.channel());
    client.check(request(key)).await.expect("it is connected");
}

/// A call of a device that stays in flight.
pub(crate) async fn long_call(gateway: &Gateway, key: &str) -> Streaming<HealthCheckResponse> {
    let mut client = HealthClient::new(gateway.channel());
    let watched = client.watch(request(key)).await;
    let mut stream = watched.expect("it is connected").into_inner();
    stream.message().await.expect("a response");
    stream
}
