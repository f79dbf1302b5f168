//! A graceful restart: a server is replaced by the next one, and no call fails.
//!
//! The server that stops drains its tunnels: calls in flight go on, and the far ends get a notice and open
//! their next tunnels at once, now to the next server. Neither client nor device has code for it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use example_support::echo::NamedEcho;
use example_support::held::Held;
use example_support::test::echo_service_client::EchoServiceClient;
use example_support::test::echo_service_server::EchoServiceServer;
use example_support::test::{EchoRequest, EchoResponse};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Error, Server};
use tonic::{Response, Status};
use tunnel_client::{ForwardChannel, Gateway, ReverseTunnelServer, endpoint_for_tunnels};
use tunnel_server::{Shutdown, TunnelServiceHandler, server_for_tunnels};

/// How many answers are awaited before the next step.
const CALLS: usize = 200;

/// How long the device may take to connect, and the first server to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many clients call at the same time.
const CALLERS: usize = 4;

#[tokio::main]
async fn main() -> Result<()> {
    let first = Instance::start("first").await?;
    // Stands for a load balancer, or a name that is looked up: where the next connection leads.
    let (leads_to, route) = watch::channel(first.url.clone());
    let gateway = || {
        let route = route.clone();
        Gateway::connect_with("the server in service", move || {
            let url = route.borrow().clone();
            async move {
                endpoint_for_tunnels(Endpoint::from_shared(url)?)
                    .connect()
                    .await
            }
        })
    };
    let channel = ForwardChannel::builder(gateway()).connect().await?;
    let device = ReverseTunnelServer::builder(gateway())
        .add_service(EchoServiceServer::new(NamedEcho("device".into())));
    tokio::spawn(device.run());

    let (answers, mut answered) = mpsc::channel(CALLERS);
    for _ in 0..CALLERS {
        let (mut echo, answers) = (EchoServiceClient::new(channel.clone()), answers.clone());
        tokio::spawn(async move {
            loop {
                let answer = echo.echo(EchoRequest::default()).await;
                if answers.send(answer).await.is_err() {
                    break;
                }
            }
        });
    }
    let mut counts = BTreeMap::new();
    take_answers(&mut answered, "first: ", &mut counts).await?;

    // A call to the device that lasts longer than the server is in service.
    let device = first.handler.as_channel();
    device.wait_for_ready(PATIENCE).await?;
    let in_flight = Held::begin(device).await;

    let second = Instance::start("second").await?;
    leads_to.send(second.url)?;
    let _ = first.stop.send(());
    println!("the first server drains, the second has taken over");
    take_answers(&mut answered, "second: ", &mut counts).await?;
    let device = second.handler.as_channel();
    device.wait_for_ready(PATIENCE).await?;
    let request = EchoRequest {
        message: "Hello from the second".into(),
    };
    let answer = EchoServiceClient::new(device).echo(request).await?;
    println!("{}", answer.into_inner().message);

    println!("{}", in_flight.send("Hello from the first").await?);
    first.running.await??;
    println!("the first server has stopped");
    take_answers(&mut answered, "second: ", &mut counts).await?;

    for (server, calls) in &counts {
        println!("{server}{calls} calls answered");
    }
    println!("✓ No call has failed");
    Ok(())
}

/// Counts answers until a server has given enough of them. Fails if a call has failed.
async fn take_answers(
    answered: &mut mpsc::Receiver<Result<Response<EchoResponse>, Status>>,
    server: &str,
    counts: &mut BTreeMap<String, usize>,
) -> Result<()> {
    let mut missing = CALLS;
    while missing > 0 {
        let answer = answered.recv().await.context("nobody calls any more")?;
        let message = answer?.into_inner().message;
        missing -= usize::from(message == server);
        *counts.entry(message).or_default() += 1;
    }
    Ok(())
}

/// A server that runs.
struct Instance {
    url: String,
    handler: TunnelServiceHandler,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), Error>>,
}

impl Instance {
    async fn start(name: &str) -> Result<Self> {
        let handler = TunnelServiceHandler::builder()
            .add_service(EchoServiceServer::new(NamedEcho(name.to_owned())))
            .build();
        let server = server_for_tunnels(Server::builder()).add_service(handler.service());
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?.with_nodelay(Some(true));
        let url = format!("http://{}", incoming.local_addr()?);
        let (stop, stopped) = oneshot::channel();
        let shutdown = Shutdown::on(async { stopped.await.unwrap_or(()) });
        let shutdown = shutdown.timeout(PATIENCE);
        let serving = handler.clone();
        Ok(Self {
            url,
            handler,
            stop,
            running: tokio::spawn(async move { serving.serve(server, incoming, shutdown).await }),
        })
    }
}
