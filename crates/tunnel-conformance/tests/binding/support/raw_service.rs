//! Services without generated code: a function of the test answers HTTP requests.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;
use tunnel_client::{ResponseBody, TunnelChannel};

use super::body::Piece;
use super::body::Pieces;

type Response = http::Response<Body>;
type Answer = dyn Fn(http::Request<Body>) -> BoxFuture<'static, Response> + Send + Sync;

/// The service `raw.Service`, answered by a function.
#[derive(Clone)]
pub(crate) struct RawService(Arc<Answer>);

/// A service that answers with a function.
pub(crate) fn answers<F, A>(answer: F) -> RawService
where
    F: Fn(http::Request<Body>) -> A + Send + Sync + 'static,
    A: Future<Output = Response> + Send + 'static,
{
    RawService(Arc::new(move |request| Box::pin(answer(request))))
}

/// A service that answers every call with these body pieces.
pub(crate) fn answers_with(pieces: impl Fn() -> Vec<Piece> + Send + Sync + 'static) -> RawService {
    answers(move |_| std::future::ready(response(Pieces::all(pieces()))))
}

/// A gRPC response with this body.
pub(crate) fn response(body: Body) -> Response {
    let response = http::Response::builder().header("content-type", "application/grpc");
    response.body(body).expect("legal")
}

impl NamedService for RawService {
    const NAME: &'static str = "raw.Service";
}

impl Service<http::Request<Body>> for RawService {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = (self.0)(request);
        Box::pin(async { Ok(answer.await) })
    }
}

/// A request to the raw service.
pub(crate) fn raw_request(body: Body) -> http::Request<Body> {
    raw_request_for("Any", body)
}

/// A request for a method of the raw service.
pub(crate) fn raw_request_for(method: &str, body: Body) -> http::Request<Body> {
    let request = http::Request::post(format!("/raw.Service/{method}"));
    let request = request.version(http::Version::HTTP_2);
    request.body(body).expect("legal")
}

/// Calls the raw service.
pub(crate) async fn raw_call(
    tunnel: &TunnelChannel,
    body: Body,
) -> Result<http::Response<ResponseBody>, Status> {
    tunnel.clone().call(raw_request(body)).await
}

/// Calls the raw service and reads the response to its end. Returns its bytes and its status.
pub(crate) async fn raw_outcome(tunnel: &TunnelChannel, body: Body) -> (Vec<u8>, Status) {
    outcome_of(tunnel, raw_request(body)).await
}

/// The same for any request.
pub(crate) async fn outcome_of(
    tunnel: &TunnelChannel,
    request: http::Request<Body>,
) -> (Vec<u8>, Status) {
    let response = match tunnel.clone().call(request).await {
        Ok(response) => response,
        Err(status) => return (Vec::new(), status),
    };
    let (head, body) = response.into_parts();
    if let Some(status) = Status::from_header_map(&head.headers) {
        return (Vec::new(), status);
    }
    let (bytes, end) = super::body::read_all(body).await;
    let status = match end {
        Ok(trailers) => {
            let trailers = trailers.expect("a response of a tunnel ends with trailers or fails");
            Status::from_header_map(&trailers).expect("a status")
        }
        Err(status) => status,
    };
    (bytes, status)
}
