//! The health service of the gateway: whether it is ready, and whether a device is reachable.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tunnel_fleet::Fleet;

use super::edge::Gate;
use super::record::Revoked;
use crate::identity::Identity;

/// The name of a device's service is this and its key.
const DEVICE: &str = "tunnel.device/";

/// The method that a client must be allowed to call of a device to ask for its health.
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// The health service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct GatewayHealth {
    pub(crate) fleet: Fleet,
    pub(crate) gate: Arc<Gate>,
    /// Whether the gateway is ready.
    pub(crate) ready: watch::Receiver<bool>,
}

impl GatewayHealth {
    fn status(&self, service: &str) -> ServingStatus {
        let serving = match service.strip_prefix(DEVICE) {
            Some(key) => self.fleet.channel(key).is_ready(),
            None if service.is_empty() => *self.ready.borrow(),
            None => return ServingStatus::ServiceUnknown,
        };
        match serving {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        }
    }

    /// Whether somebody may know this.
    fn check_access(&self, who: Option<&Identity>, service: &str) -> Result<(), Status> {
        match service.strip_prefix(DEVICE) {
            Some(key) => self.gate.check(who, key, CHECK),
            None => Ok(()),
        }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[tonic::async_trait]
impl Health for GatewayHealth {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.check_access(request.extensions().get(), &request.get_ref().service)?;
        let service = request.into_inner().service;
        match self.status(&service) {
            ServingStatus::ServiceUnknown => {
                let message = format!(
                    "{service:?} is unknown: \"\" is the gateway, \"{DEVICE}KEY\" a device"
                );
                Err(Status::not_found(message))
            }
            status => Ok(Response::new(response(status))),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let who: Option<Identity> = request.extensions().get().cloned();
        let service = request.into_inner().service;
        self.check_access(who.as_ref(), &service)?;
        let health = self.clone();
        let mut revoked: Revoked = match service.strip_prefix(DEVICE) {
            Some(key) => self.gate.revoked(who, key.into(), CHECK.to_owned()),
            None => Box::pin(std::future::pending()),
        };
        let mut open = self.fleet.changes();
        let mut ready = self.ready.clone();
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let mut last = None;
            loop {
                let now = health.status(&service);
                if last != Some(now) {
                    last = Some(now);
                    if sender.send(Ok(response(now))).await.is_err() {
                        return;
                    }
                }
                let gone = tokio::select! {
                    biased;
                    status = &mut revoked => {
                        // The client may have gone.
                        let _ = sender.send(Err(status)).await;
                        true
                    }
                    changed = open.changed() => changed.is_err(),
                    changed = ready.changed() => changed.is_err(),
                    () = sender.closed() => true,
                };
                if gone {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
