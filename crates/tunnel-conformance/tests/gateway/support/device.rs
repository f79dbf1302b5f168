//! Devices built on the binding only, so that a test controls every step.

use std::future::poll_fn;
use std::sync::Arc;

use http::header::{HeaderValue, TE};
use tonic::Status;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tower::BoxError;
use tunnel_conformance::Probe;
use tunnel_conformance::service::scripted;
use tunnel_core::{Config, EndReason, Offer};
use tunnel_server::{AcceptedTunnel, Direction, TunnelInfo};
use tunnel_tonic::outer::{OPEN_REVERSE_TUNNEL_PATH, check_response, common_offer, put_offer};
use tunnel_tonic::{CallService, Inbound, NetworkRole, Outbound, Tunnel};

use super::DEVICE;

/// The metadata by which a test finds the tunnel of a device at the gateway.
const NUMBER: &str = "number";

/// A device before it dials.
#[derive(Clone)]
pub(crate) struct Dial {
    metadata: MetadataMap,
    config: Config,
    routes: Routes,
    probe: Probe,
    deaf: bool,
}

/// A device whose tunnel was accepted and that has sent nothing yet, not even settings.
pub(crate) struct Accepted {
    device: Device,
    offer: Offer,
    inbound: Inbound,
    body: Body,
    routes: Routes,
}

/// A device that serves.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) tunnel: Tunnel,
    /// Observes its handlers.
    pub(crate) probe: Probe,
    number: Arc<str>,
}

impl Dial {
    /// One that serves the scripted service.
    pub(crate) fn new(probe: &Probe) -> Self {
        Self {
            metadata: MetadataMap::new(),
            config: Config::default(),
            routes: Routes::new(scripted(probe)),
            probe: probe.clone(),
            deaf: false,
        }
    }

    pub(crate) fn named(self, name: &str) -> Self {
        self.with(DEVICE, name)
    }

    pub(crate) fn with(mut self, key: &'static str, value: &str) -> Self {
        let value = value.parse().expect("a legal value");
        self.metadata.insert(key, value);
        self
    }

    pub(crate) fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Does not understand drain notices, like older versions and other implementations.
    pub(crate) fn deaf(mut self) -> Self {
        self.deaf = true;
        self
    }

    /// Dials and serves.
    pub(crate) async fn dial<T>(self, channel: T) -> Result<Device, Status>
    where
        T: GrpcService<Body>,
        T::Error: Into<BoxError>,
        T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        <T::ResponseBody as http_body::Body>::Error: Into<BoxError>,
    {
        Ok(self.knock(channel).await?.serve())
    }

    /// Dials, and stops when the gateway has accepted the tunnel.
    pub(crate) async fn knock<T>(mut self, mut channel: T) -> Result<Accepted, Status>
    where
        T: GrpcService<Body>,
        T::Error: Into<BoxError>,
        T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        <T::ResponseBody as http_body::Body>::Error: Into<BoxError>,
    {
        let info = TunnelInfo::new(Direction::Reverse, MetadataMap::new(), None, None);
        let number: Arc<str> = info.id().to_string().into();
        self = self.with(NUMBER, &number);
        let (tunnel, outbound, inbound) =
            Tunnel::new(NetworkRole::Client, self.config.clone(), info);
        let device = Device {
            tunnel,
            probe: self.probe.clone(),
            number,
        };
        let request = self.request(outbound);
        let failed = |error: T::Error| Status::from_error(error.into());
        poll_fn(|cx| channel.poll_ready(cx)).await.map_err(failed)?;
        let response = channel.call(request).await.map_err(failed)?;
        let (head, body) = response.into_parts();
        check_response(&head)?;
        let mut offer = common_offer(&self.config, &head.headers);
        offer.drain &= !self.deaf;
        Ok(Accepted {
            device,
            offer,
            inbound,
            body: Body::new(body),
            routes: self.routes,
        })
    }

    fn request(&self, outbound: Outbound) -> http::Request<Body> {
        let mut request = http::Request::post(OPEN_REVERSE_TUNNEL_PATH)
            .version(http::Version::HTTP_2)
            .body(Body::new(outbound))
            .expect("legal");
        let headers = request.headers_mut();
        *headers = self.metadata.clone().into_headers();
        headers.insert(TE, HeaderValue::from_static("trailers"));
        put_offer(&self.config, headers);
        if self.deaf {
            headers.remove(tunnel_core::DRAIN_HEADER);
        }
        request
    }
}

impl Accepted {
    pub(crate) fn serve(self) -> Device {
        let service = CallService::new(self.routes.prepare());
        let service = Some((service, http::Extensions::new()));
        self.inbound.start(self.offer, self.body, service, ());
        self.device
    }

    /// Whether this is the other end of one of the gateway's tunnels.
    pub(crate) fn is(&self, tunnel: &AcceptedTunnel) -> bool {
        self.device.is(tunnel.info())
    }
}

impl Device {
    /// Whether this is the other end of one of the gateway's tunnels.
    pub(crate) fn is(&self, tunnel: &TunnelInfo) -> bool {
        let number = tunnel.metadata().get(NUMBER);
        number.is_some_and(|number| number == &*self.number)
    }

    /// Closes the tunnel cleanly.
    pub(crate) fn hang_up(&self) {
        self.tunnel.close();
    }

    /// Waits for the end of its tunnel.
    pub(crate) async fn closed(&self) -> EndReason {
        self.tunnel.closed().await
    }
}
