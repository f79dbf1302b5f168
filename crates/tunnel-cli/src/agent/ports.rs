//! The TCP ports that an agent exposes: no other is reached.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::server::StreamingService;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::target::CONNECT_TIMEOUT;
use crate::tcp::{self, Chunk};

/// Addresses by name. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Ports(Arc<BTreeMap<String, String>>);

impl FromIterator<(String, String)> for Ports {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(ports: I) -> Self {
        Self(Arc::new(ports.into_iter().collect()))
    }
}

impl Ports {
    /// Answers a call of a port.
    pub(super) async fn call(self, request: http::Request<Body>) -> http::Response<Body> {
        let name = request.uri().path().trim_start_matches(tcp::PATH);
        let Some(address) = self.0.get(name) else {
            let message = format!("the agent exposes no TCP port {name:?}");
            return Status::unimplemented(message).into_http();
        };
        let port = Port(address.clone());
        let codec = ProstCodec::<Chunk, Chunk>::default();
        tonic::server::Grpc::new(codec)
            .streaming(port, request)
            .await
    }
}

struct Port(String);

impl StreamingService<Chunk> for Port {
    type Response = Chunk;
    type ResponseStream = BoxStream<'static, Result<Chunk, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Chunk>>) -> Self::Future {
        let address = self.0.clone();
        Box::pin(async move {
            let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(&address)).await;
            let failed = |why: String| {
                Status::unavailable(format!("the agent cannot reach tcp:{address}: {why}"))
            };
            let socket = connected
                .map_err(|_| failed(format!("no answer in {CONNECT_TIMEOUT:?}")))?
                .map_err(|error| failed(error.kind().to_string()))?;
            // Only slower without it.
            let _ = socket.set_nodelay(true);
            Ok(Response::new(
                tcp::serve(socket, request.into_inner()).boxed(),
            ))
        })
    }
}
