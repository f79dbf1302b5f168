//! A server behind an agent, and calls of it: the health service stands for any.

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Routes;
use tonic::transport::{Channel, Server};
use tonic::{Request, Status, Streaming};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_health::server::HealthReporter;
use tunnel_conformance::TcpServer;

/// A server with the health service, on a port of its own.
pub(crate) async fn server() -> (TcpServer, HealthReporter) {
    let (reporter, health) = tonic_health::server::health_reporter();
    let server = TcpServer::start(Server::builder(), Routes::new(health)).await;
    (server, reporter)
}

/// What a caller shows and names.
#[derive(Clone, Default)]
pub(crate) struct Caller {
    pub(crate) key: Option<&'static str>,
    pub(crate) token: Option<String>,
}

impl Caller {
    /// A caller of a device.
    pub(crate) fn of(key: &'static str) -> Self {
        Self {
            key: Some(key),
            token: None,
        }
    }

    /// The same with a bearer token.
    pub(crate) fn with_token(self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self
        }
    }

    fn request(&self) -> Request<HealthCheckRequest> {
        let mut request = Request::new(HealthCheckRequest::default());
        if let Some(key) = self.key {
            let key = MetadataValue::<Ascii>::from_static(key);
            request.metadata_mut().insert("tunnel-key", key);
        }
        if let Some(token) = &self.token {
            let bearer = format!("Bearer {token}").parse().expect("legal");
            request.metadata_mut().insert("authorization", bearer);
        }
        request
    }

    /// A unary call.
    pub(crate) async fn check(&self, channel: &Channel) -> Result<(), Status> {
        HealthClient::new(channel.clone())
            .check(self.request())
            .await
            .map(|_| ())
    }

    /// A stream that goes on; its first response has arrived.
    pub(crate) async fn watch(
        &self,
        channel: &Channel,
    ) -> Result<Streaming<HealthCheckResponse>, Status> {
        let watched = HealthClient::new(channel.clone())
            .watch(self.request())
            .await;
        let mut stream = watched?.into_inner();
        stream
            .message()
            .await?
            .ok_or_else(|| Status::unknown("no response"))?;
        Ok(stream)
    }
}
