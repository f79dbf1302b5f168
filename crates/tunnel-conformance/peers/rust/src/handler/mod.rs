//! The interop service: it does what the scripts of its calls say, and knows
//! nothing of tunnels.

mod call;
mod endings;
mod stream;
mod watch;

use tonic::{Request, Response, Status, Streaming};

use call::Call;
use endings::WithEndings;
use stream::{Responder, Responses};
use watch::Records;

use crate::proto as pb;
use crate::proto::interop_service_server::{InteropService, InteropServiceServer};

/// Does what the scripts of its calls say.
#[derive(Clone, Default)]
pub(crate) struct Interop {
    records: Records,
}

/// The service, for any server.
pub(crate) fn interop() -> WithEndings<InteropServiceServer<Interop>> {
    WithEndings(InteropServiceServer::new(Interop::default()))
}

#[tonic::async_trait]
impl InteropService for Interop {
    type ServerStreamStream = Responses;
    type BidiStream = Responses;

    async fn unary(&self, request: Request<pb::Request>) -> Result<Response<pb::Response>, Status> {
        let (metadata, _, request) = request.into_parts();
        let mut call = Call::begin(&self.records, metadata, Some(&request))?;
        if let Some(failure) = call.prelude().await? {
            return Ok(call.fail_after_headers(failure));
        }
        let response = call.scripted_response(0);
        Ok(call.answer(response))
    }

    async fn server_stream(
        &self,
        request: Request<pb::Request>,
    ) -> Result<Response<Responses>, Status> {
        let (metadata, _, request) = request.into_parts();
        let call = Call::begin(&self.records, metadata, Some(&request))?;
        Responder::new(call, None).respond().await
    }

    async fn client_stream(
        &self,
        request: Request<Streaming<pb::Request>>,
    ) -> Result<Response<pb::Response>, Status> {
        let (metadata, _, mut requests) = request.into_parts();
        let first = requests.message().await?;
        let mut call = Call::begin(&self.records, metadata, first.as_ref())?;
        if let Some(failure) = call.prelude().await? {
            return Ok(call.fail_after_headers(failure));
        }
        if first.is_some() {
            call.read_delay().await;
            while call.read(&mut requests).await?.is_some() {}
        }
        let mut response = call.scripted_response(0);
        response.observed = Some(call.observed());
        Ok(call.answer(response))
    }

    async fn bidi(
        &self,
        request: Request<Streaming<pb::Request>>,
    ) -> Result<Response<Responses>, Status> {
        let (metadata, _, mut requests) = request.into_parts();
        let Some(first) = requests.message().await? else {
            return Ok(Response::new(stream::none()));
        };
        let call = Call::begin(&self.records, metadata, Some(&first))?;
        let repeating = stream::Repeating { first, requests };
        Responder::new(call, Some(repeating)).respond().await
    }

    async fn watch(
        &self,
        request: Request<pb::WatchRequest>,
    ) -> Result<Response<pb::WatchResponse>, Status> {
        let answer = self.records.wait(request.get_ref()).await;
        Ok(Response::new(answer))
    }
}
