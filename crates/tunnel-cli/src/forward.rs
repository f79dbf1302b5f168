//! `tunnel forward`: a local port that is the server behind one key.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tunnel_client::ForwardTo;
use tunnel_server::server_for_tunnels_and_calls;

use crate::connect::{ConnectArgs, KeyChannel};
use crate::signals::Signals;
use crate::tcp;

/// The pause after an error to accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Opens a local port whose gRPC calls go to the server behind a key.
///
/// The port speaks plaintext HTTP/2. With KEY:NAME it is the TCP port of this name that the agent exposes
/// (`--to NAME=tcp:HOST:PORT`). Every program that connects to it uses the credentials of this command.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The key of the server, or KEY:NAME for a TCP port. A key that contains a colon ends with one here.
    #[arg(value_name = "KEY[:NAME]")]
    key: String,
    /// The local address. Port 0 lets the system choose one, which is printed.
    #[arg(
        long,
        env = "TUNNEL_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:0"
    )]
    listen: SocketAddr,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Runs until ctrl-c or SIGTERM.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let (key, port) = match args.key.rsplit_once(':') {
        None => (args.key.as_str(), None),
        Some((key, "")) => (key, None),
        Some((key, port)) => (key, Some(port)),
    };
    let channel = args.connect.lazy_key_channel(key)?;
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.with_context(|| format!("cannot listen at {}", args.listen))?;
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "other machines can call {} here with this command's credentials", args.key);
    }
    println!("{address}");
    tracing::info!(%address, gateway = args.connect.gateway, "calls to this address go to {}", args.key);
    let mut signals = Signals::catch()?;
    let serving = async {
        match port {
            None => serve(listener, channel).await,
            Some(port) => pass_on(listener, channel, port).await,
        }
    };
    tokio::select! {
        result = serving => result?,
        () = signals.next() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Passes every TCP connection on by a call of its own.
async fn pass_on(listener: TcpListener, channel: KeyChannel, port: &str) -> Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    // Only slower without it.
                    let _ = socket.set_nodelay(true);
                    let (channel, port) = (channel.clone(), port.to_owned());
                    connections.spawn(async move {
                        if let Err(status) = tcp::call(channel, &port, socket).await {
                            let message = status.message();
                            tracing::warn!(%peer, code = ?status.code(), "connection ended: {message}");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Passes every call that arrives on to the channel.
async fn serve(listener: TcpListener, channel: KeyChannel) -> Result<()> {
    let routes = Routes::from(axum::Router::new().fallback_service(ForwardTo::new(channel)));
    server_for_tunnels_and_calls(Server::builder())
        .add_routes(routes)
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    use crate::agent::tests::{agent, gateway, local_anywhere, through};

    async fn forwarding(to: SocketAddr) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(serve(listener, through(to)));
        format!("http://{address}")
    }

    #[tokio::test]
    async fn a_local_port_is_the_server_behind_the_key() {
        let gateway = gateway().await;
        let (local, _) = local_anywhere().await;
        let _agent = agent(gateway.address, vec![local.address.to_string()]).await;
        let address = forwarding(gateway.address).await;
        // An ordinary client, which knows nothing of keys.
        let endpoint = tonic::transport::Endpoint::from_shared(address).expect("legal");
        let mut client = HealthClient::new(endpoint.connect().await.expect("it listens"));
        let response = client.check(HealthCheckRequest::default()).await;
        assert_eq!(response.expect("served").into_inner().status, 1);
        let watching = client.watch(HealthCheckRequest::default()).await;
        let mut watching = watching.expect("served").into_inner();
        assert!(watching.message().await.expect("served").is_some());

        let gateway = gateway.end().await;
        // The first call may find the connection as it breaks.
        let _ = client.check(HealthCheckRequest::default()).await;
        let status = client.check(HealthCheckRequest::default()).await;
        let status = status.expect_err("no gateway");
        assert_eq!(status.code(), Code::Unavailable);
        let wanted =
            format!("this command cannot reach the gateway at {gateway}: connection refused");
        assert_eq!(status.message(), wanted);
    }
}
