//! Deadlines and cancellation: a call that nobody waits for any more ends at the far end too.
//!
//! A call is cancelled by dropping its future. A deadline travels with the call (`grpc-timeout`), and both
//! ends enforce it, so it ends the handler even if the network is gone.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use example_support::serve::on_loopback;
use example_support::test::echo_service_client::EchoServiceClient;
use example_support::test::echo_service_server::{EchoService, EchoServiceServer};
use example_support::test::{EchoErrorRequest, EchoRequest, EchoResponse};
use futures::future::pending;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tunnel_client::ForwardChannel;
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

/// What happens to a handler.
#[derive(Debug, PartialEq)]
enum Event {
    /// It has begun, for a call with this `grpc-timeout`.
    Begun(Option<String>),
    /// Its future was dropped before it had an answer.
    Dropped,
}

/// Never answers, and reports what happens to its handlers.
struct Slow(mpsc::UnboundedSender<Event>);

struct OnDrop(mpsc::UnboundedSender<Event>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(Event::Dropped);
    }
}

#[tonic::async_trait]
impl EchoService for Slow {
    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        let timeout = request.metadata().get("grpc-timeout");
        let timeout = timeout.and_then(|timeout| timeout.to_str().ok());
        let _ = self.0.send(Event::Begun(timeout.map(str::to_owned)));
        // A handler has nothing to do for this: what it owns is dropped with it.
        let _guard = OnDrop(self.0.clone());
        pending().await
    }

    async fn echo_error(
        &self,
        _: Request<EchoErrorRequest>,
    ) -> Result<Response<EchoResponse>, Status> {
        Err(Status::unimplemented("not offered here"))
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let (events, mut happened) = mpsc::unbounded_channel();
    let handler = TunnelServiceHandler::builder()
        .add_service(EchoServiceServer::new(Slow(events)))
        .build();
    let server = server_for_tunnels(Server::builder()).add_service(handler.service());
    let address = on_loopback(server).await?;
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let channel = ForwardChannel::builder(endpoint).connect().await?;
    let mut echo = EchoServiceClient::new(channel);

    let mut caller = echo.clone();
    let call = tokio::spawn(async move { caller.echo(EchoRequest::default()).await });
    let begun = next(&mut happened).await?;
    ensure!(begun == Event::Begun(None), "{begun:?}");
    println!("a call without a deadline has reached its handler");
    call.abort(); // drops the call's future
    let ended = next(&mut happened).await?;
    ensure!(ended == Event::Dropped, "{ended:?}");
    println!("the caller has gone: the handler was cancelled");

    let deadline = Duration::from_millis(200);
    let mut request = Request::new(EchoRequest::default());
    request.set_timeout(deadline);
    let start = Instant::now();
    let status = echo.echo(request).await.err().context("it never answers")?;
    ensure!(status.code() == Code::DeadlineExceeded, "{status:?}");
    ensure!(start.elapsed() >= deadline, "too early");
    println!(
        "a deadline has passed: {:?}, {}",
        status.code(),
        status.message()
    );
    let begun = next(&mut happened).await?;
    let Event::Begun(Some(seen)) = begun else {
        anyhow::bail!("the handler saw no deadline: {begun:?}");
    };
    println!("the handler knew its deadline: grpc-timeout {seen}");
    let ended = next(&mut happened).await?;
    ensure!(ended == Event::Dropped, "{ended:?}");
    println!("✓ Both handlers ended with their calls");
    Ok(())
}

async fn next(happened: &mut mpsc::UnboundedReceiver<Event>) -> Result<Event> {
    let event = timeout(Duration::from_secs(30), happened.recv()).await?;
    event.context("no event")
}
