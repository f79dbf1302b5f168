//! The answers to other gateways.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::api::peer_server::Peer;
use super::api::{DenyRequest, DenyResponse, FindRequest, FindResponse, LookRequest, LookResponse};
use crate::record::Denial;
use crate::shared::Shared;

/// Answers other gateways.
#[derive(Clone)]
pub(crate) struct PeerService {
    pub(crate) shared: Arc<Shared>,
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn find(&self, request: Request<FindRequest>) -> Result<Response<FindResponse>, Status> {
        let tunnels = self.shared.own_tunnels(&request.into_inner().key).len();
        let tunnels = u32::try_from(tunnels).unwrap_or(u32::MAX);
        Ok(Response::new(FindResponse { tunnels }))
    }

    async fn deny(&self, request: Request<DenyRequest>) -> Result<Response<DenyResponse>, Status> {
        for denial in request.into_inner().denials {
            let key = denial.key;
            let denial = denial.denied.then(|| Denial {
                until: (denial.until > 0).then_some(denial.until),
                reason: denial.reason,
                by: denial.by,
            });
            self.shared.told(&key, denial);
        }
        Ok(Response::new(DenyResponse {}))
    }

    async fn look(&self, _: Request<LookRequest>) -> Result<Response<LookResponse>, Status> {
        Ok(Response::new(LookResponse {
            directory_answers: !self.shared.cache().is_stale(),
        }))
    }
}
