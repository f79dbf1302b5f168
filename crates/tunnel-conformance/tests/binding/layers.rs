//! Errors of tower layers around a service, beside the same layers in a plain tonic server.

use std::time::Duration;

use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Status};
use tower::layer::util::Stack;
use tower::limit::ConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower::timeout::TimeoutLayer;
use tower::util::MapErrLayer;
use tower::{BoxError, Layer, Service, ServiceExt as _};
use tunnel_client::ForwardTunnel;
use tunnel_server::TunnelServiceHandler;

use crate::support::guarded;
use crate::support::raw_service::{answers, outcome_of, raw_request};

/// An error around another one.
#[derive(Debug)]
struct Around(BoxError);

impl std::fmt::Display for Around {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a layer failed")
    }
}

impl std::error::Error for Around {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

/// The status of a call to a service in a layer, through a tunnel.
async fn through_a_tunnel<L>(layer: L) -> Status
where
    L: Layer<Routes>,
    L::Service: Service<http::Request<Body>, Response = http::Response<Body>, Error = BoxError>
        + Clone
        + Send
        + Sync
        + 'static,
    <L::Service as Service<http::Request<Body>>>::Future: Send + 'static,
{
    let handler = TunnelServiceHandler::builder()
        .add_service(answers(|_| std::future::pending()))
        .layer(layer)
        .build();
    let tunnel = ForwardTunnel::new(handler.service()).open().await;
    let tunnel = tunnel.expect("the service accepts a tunnel");
    outcome_of(&tunnel, raw_request(Body::empty())).await.1
}

/// The status of the same call to a plain tonic server.
async fn plainly<L>(layer: L) -> Status
where
    L: Layer<Routes> + Clone + Send + Sync + 'static,
    L::Service: Service<http::Request<Body>, Response = http::Response<Body>, Error = BoxError>
        + Clone
        + Send
        + Sync
        + 'static,
    <L::Service as Service<http::Request<Body>>>::Future: Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await;
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let routes = Routes::new(answers(|_| std::future::pending()));
    let server = Server::builder().layer(layer).add_routes(routes);
    let server = tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("legal");
    let channel = endpoint.connect().await.expect("it is there");
    let response = channel.oneshot(raw_request(Body::empty())).await;
    server.abort();
    match response {
        Ok(response) => Status::from_header_map(response.headers()).expect("a status"),
        Err(error) => Status::from_error(error.into()),
    }
}

/// A layer that is full with no call at all.
fn shed() -> Stack<ConcurrencyLimitLayer, LoadShedLayer> {
    Stack::new(ConcurrencyLimitLayer::new(0), LoadShedLayer::new())
}

/// A plain tonic server has no status for a timeout: it resets the stream, and its client reports INTERNAL.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_a_tower_timeout_ends_has_the_code_deadline_exceeded() {
    guarded(async {
        let timeout = TimeoutLayer::new(Duration::from_millis(1));
        let wrapped = Stack::new(
            timeout.clone(),
            MapErrLayer::new(|e| BoxError::from(Around(e))),
        );
        let status = through_a_tunnel(timeout.clone()).await;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        assert_eq!(status.message(), "request timed out");
        let status = through_a_tunnel(wrapped).await;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        assert_eq!(status.message(), "a layer failed");
        let plain = plainly(timeout).await;
        assert_eq!(plain.code(), Code::Internal, "{plain:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_a_tokio_timeout_ends_has_the_code_deadline_exceeded() {
    guarded(async {
        let layer = tower::layer::layer_fn(|_: Routes| {
            tower::service_fn(|_: http::Request<Body>| async {
                let never = std::future::pending::<http::Response<Body>>();
                let ended = tokio::time::timeout(Duration::from_millis(1), never).await;
                ended.map_err(BoxError::from)
            })
        });
        let status = through_a_tunnel(layer).await;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_shed_has_the_code_of_plain_tonic() {
    guarded(async {
        let plain = plainly(shed()).await;
        assert_eq!(plain.code(), Code::ResourceExhausted, "{plain:?}");
        assert_eq!(through_a_tunnel(shed()).await.code(), plain.code());
        let wrapped = Stack::new(shed(), MapErrLayer::new(|e| BoxError::from(Around(e))));
        assert_eq!(through_a_tunnel(wrapped).await.code(), plain.code());
    })
    .await;
}
