//! The service under test: generated server stubs around a handler that runs each call's script.

use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use crate::handler::{Handler, Inbound};
pub use crate::mark::Mark;
use crate::probe::Probe;
use crate::proto;
use crate::proto::test_service_server::{TestService, TestServiceServer};
pub use crate::trailers::WithEndings;

/// A handler of all four methods that runs the script of each call.
#[derive(Clone, Debug)]
pub struct Scripted {
    probe: Probe,
}

/// The service under test, ready to be added to a server.
pub type ScriptedServer = WithEndings<TestServiceServer<Scripted>>;

/// A new service under test.
pub fn scripted(probe: &Probe) -> ScriptedServer {
    let probe = probe.clone();
    WithEndings(TestServiceServer::new(Scripted { probe }))
}

/// The generated server of the service under test.
pub type TestServer = TestServiceServer<Scripted>;

/// A new service under test with settings of its server.
pub fn scripted_with(
    probe: &Probe,
    configure: impl FnOnce(TestServer) -> TestServer,
) -> ScriptedServer {
    let WithEndings(server) = scripted(probe);
    WithEndings(configure(server))
}

/// A new service under test that accepts requests up to `limit` bytes.
pub fn scripted_with_limit(probe: &Probe, limit: usize) -> ScriptedServer {
    scripted_with(probe, |server| server.max_decoding_message_size(limit))
}

type Responses = BoxStream<'static, Result<proto::Response, Status>>;

impl Scripted {
    fn one(&self, request: Request<proto::Request>) -> Result<Handler, Status> {
        Handler::new(&self.probe, request.map(|one| Inbound::One(Some(one))))
    }

    fn many(&self, request: Request<Streaming<proto::Request>>) -> Result<Handler, Status> {
        Handler::new(&self.probe, request.map(Inbound::Many))
    }
}

#[tonic::async_trait]
impl TestService for Scripted {
    type ServerStreamStream = Responses;
    type BidiStream = Responses;

    async fn unary(
        &self,
        request: Request<proto::Request>,
    ) -> Result<Response<proto::Response>, Status> {
        self.one(request)?.respond_once().await
    }

    async fn server_stream(
        &self,
        request: Request<proto::Request>,
    ) -> Result<Response<Responses>, Status> {
        self.one(request)?.respond().await
    }

    async fn client_stream(
        &self,
        request: Request<Streaming<proto::Request>>,
    ) -> Result<Response<proto::Response>, Status> {
        self.many(request)?.respond_once().await
    }

    async fn bidi(
        &self,
        request: Request<Streaming<proto::Request>>,
    ) -> Result<Response<Responses>, Status> {
        self.many(request)?.respond().await
    }
}
