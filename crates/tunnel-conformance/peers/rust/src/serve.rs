//! Serving through tunnels, in both directions.

use std::io;
use std::time::Duration;

use anyhow::{Context, Result};
use example_support::address::Address;
use example_support::listen::Listener;
use example_support::signal::Shutdown;
use tokio::sync::oneshot;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Server};
use tower::ServiceExt as _;
use tunnel_client::{
    Backoff, EndReason, Gateway, Keepalive, ReverseTunnelServer, endpoint_for_tunnels_with,
};
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

use crate::Suite;
use crate::options::{End, ServeReverse};

/// How long to wait before a reverse tunnel is opened again, at most.
const AGAIN: Duration = Duration::from_millis(100);

/// How long the other end may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves forward tunnels, until nobody wants them any longer.
pub async fn forward(end: &End, services: Routes) -> Result<()> {
    let handler = TunnelServiceHandler::builder()
        .add_routes(services)
        .reverse_tunnels(false)
        .config(end.config()?)
        .build();
    let stop = stopped()?;
    let serving = listen(&end.address, &handler, std::future::pending()).await?;
    tokio::select! {
        served = serving => served,
        () = stop => Ok(()),
    }
}

/// Opens reverse tunnels and serves through them: one, or one after the other.
pub async fn reverse<S: Suite>(options: &ServeReverse<S>, services: Routes) -> Result<()> {
    let server = ReverseTunnelServer::builder(gateway(&options.end.address)?)
        .add_routes(services)
        .metadata(options.opening.metadata()?)
        .config(options.end.config()?)
        .backoff(Backoff::default().cap(AGAIN).refused_cap(AGAIN))
        .build();
    let stop = stopped()?;
    let serving = async {
        if options.again {
            server.run().await;
            return Ok(());
        }
        match server.serve().await.context("the tunnel")? {
            EndReason::Error(error) => Err(error).context("the tunnel"),
            _ => Ok(()),
        }
    };
    tokio::select! {
        served = serving => served,
        () = stop => Ok(()),
    }
}

/// Serves tunnels until it is told to stop, and says where.
pub(crate) async fn listen<S: Future<Output = ()>>(
    address: &Address,
    handler: &TunnelServiceHandler,
    stop: S,
) -> Result<impl Future<Output = Result<()>> + use<S>> {
    let listener = Listener::bind(address).await?;
    println!("LISTENING {}", listener.port());
    let server = server_for_tunnels(Server::builder()).add_service(handler.service());
    let serving = server.serve_with_incoming_shutdown(listener.incoming(), stop);
    Ok(async { Ok(serving.await?) })
}

/// A connection to a peer of any make: one that minds frequent pings, perhaps.
pub(crate) fn endpoint(address: &Address) -> Result<Endpoint> {
    let endpoint = Endpoint::from_shared(address.url())?.connect_timeout(CONNECT_TIMEOUT);
    Ok(endpoint_for_tunnels_with(endpoint, Keepalive::patient()))
}

/// A gateway that says when it has accepted a tunnel.
fn gateway(address: &Address) -> Result<Gateway> {
    let endpoint = endpoint(address)?;
    let connect = move || {
        let endpoint = endpoint.clone();
        async move { endpoint.connect().await.map(saying_connected) }
    };
    Ok(Gateway::connect_with(address.to_string(), connect))
}

type Saying<T> = tower::util::MapResponse<Channel, fn(http::Response<T>) -> http::Response<T>>;

fn saying_connected(channel: Channel) -> Saying<tonic::body::Body> {
    channel.map_response(say_connected)
}

fn say_connected<T>(response: http::Response<T>) -> http::Response<T> {
    // A refusal has its status in the headers.
    if !response.headers().contains_key(tonic::Status::GRPC_STATUS) {
        println!("CONNECTED");
    }
    response
}

/// Waits until whoever started the program no longer wants it: standard input
/// ends, or a signal comes.
fn stopped() -> Result<impl Future<Output = ()>> {
    let mut signals = Shutdown::watch().context("signals cannot be watched")?;
    let (ended, input) = oneshot::channel();
    // A thread of its own, for nothing but the end of the program ends a read that waits.
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        // Fails when the program is ending already.
        let _ = ended.send(());
    });
    Ok(async move {
        tokio::select! {
            () = signals.requested() => {}
            _ = input => {}
        }
    })
}
