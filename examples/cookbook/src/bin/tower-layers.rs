//! Tower layers around every call of a tunnel: a token, a limit on concurrency, a timeout.
//!
//! Layers of the tonic server see only the opening of a tunnel, and none of its calls. Layers of the handler
//! see each call. The builder of a device has the same `layer`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use example_support::serve::on_loopback;
use example_support::test::echo_service_client::EchoServiceClient;
use example_support::test::echo_service_server::{EchoService, EchoServiceServer};
use example_support::test::{EchoErrorRequest, EchoRequest, EchoResponse};
use futures::future::{join_all, pending};
use tokio::time::timeout;
use tonic::service::InterceptorLayer;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tower::limit::ConcurrencyLimitLayer;
use tower::timeout::TimeoutLayer;
use tunnel_client::ForwardChannel;
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

/// How many calls may run at once.
const LIMIT: usize = 2;

/// Counts the calls that run at the same time.
#[derive(Clone, Default)]
struct Busy {
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl EchoService for Busy {
    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        let message = request.into_inner().message;
        Ok(Response::new(EchoResponse { message }))
    }

    async fn echo_error(
        &self,
        _: Request<EchoErrorRequest>,
    ) -> Result<Response<EchoResponse>, Status> {
        pending().await
    }
}

/// Sees the metadata of each call, and the extensions of the tunnel's opening.
fn may_call(request: Request<()>) -> Result<Request<()>, Status> {
    match request.metadata().get("authorization") {
        Some(token) if token == "Bearer s3cret" => Ok(request),
        _ => Err(Status::unauthenticated("a token is missing")),
    }
}

fn with_token(mut request: Request<()>) -> Result<Request<()>, Status> {
    let token = "Bearer s3cret".parse();
    let token = token.map_err(|_| Status::internal("the token is not ASCII"))?;
    request.metadata_mut().insert("authorization", token);
    Ok(request)
}

#[tokio::main]
async fn main() -> Result<()> {
    let busy = Busy::default();
    let handler = TunnelServiceHandler::builder()
        .add_service(EchoServiceServer::new(busy.clone()))
        // The first is the outermost: who may not call waits for no place, and waiting for a place
        // takes nothing from the time that a call has.
        .layer(InterceptorLayer::new(may_call))
        .layer(ConcurrencyLimitLayer::new(LIMIT))
        .layer(TimeoutLayer::new(Duration::from_secs(1)))
        .build();
    let server = server_for_tunnels(Server::builder()).add_service(handler.service());
    let address = on_loopback(server).await?;
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let channel = ForwardChannel::builder(endpoint).connect().await?;

    let mut anonymous = EchoServiceClient::new(channel.clone());
    let status = anonymous.echo(EchoRequest::default()).await.err();
    let status = status.context("a call without a token was served")?;
    ensure!(status.code() == Code::Unauthenticated, "{status:?}");
    println!("without a token: {}", status.message());

    let mut echo = EchoServiceClient::with_interceptor(channel, with_token);
    let calls = (0..10).map(|number| {
        let mut echo = echo.clone();
        let message = format!("call {number}");
        async move { echo.echo(EchoRequest { message }).await }
    });
    for answer in join_all(calls).await {
        answer?;
    }
    let most = busy.most.load(Ordering::SeqCst);
    println!("10 calls at once: at most {most} ran together");
    ensure!(most <= LIMIT, "the limit is {LIMIT}");

    let call = echo.echo_error(EchoErrorRequest::default());
    let answer = timeout(Duration::from_secs(30), call).await?;
    let status = answer.err().context("it never answers")?;
    println!("a handler that never answers: {:?}", status.code());
    ensure!(status.code() == Code::DeadlineExceeded, "{status:?}");
    println!("✓ All three layers saw each call");
    Ok(())
}
