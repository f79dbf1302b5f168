//! The service that the server calls.

use example_support::echo::Echo;
use example_support::test::echo_service_server::EchoService;
use example_support::test::{EchoErrorRequest, EchoRequest, EchoResponse};
use tonic::{Code, Request, Response, Status};
use tracing::info;
use tunnel_client::TunnelInfo;

use crate::teller::Teller;

/// The echo service, which logs requests.
pub(crate) struct SayingEcho {
    pub(crate) teller: Teller,
}

impl SayingEcho {
    fn say<T>(&self, request: &Request<T>, what: &str) {
        // The request's extensions name its tunnel.
        if let Some(tunnel) = request.extensions().get::<TunnelInfo>() {
            self.teller.established(tunnel.id());
        }
        info!("Client received request: {what}");
    }
}

#[tonic::async_trait]
impl EchoService for SayingEcho {
    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        self.say(&request, &request.get_ref().message);
        Echo.echo(request).await
    }

    async fn echo_error(
        &self,
        request: Request<EchoErrorRequest>,
    ) -> Result<Response<EchoResponse>, Status> {
        let EchoErrorRequest { code, message } = request.get_ref();
        let code = Code::from_i32(*code);
        self.say(&request, &format!("to fail with {code:?}: {message}"));
        Echo.echo_error(request).await
    }
}
