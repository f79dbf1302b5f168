//! Compression: of single calls, or of everything that a tunnel carries.
//!
//! `send_compressed` and `accept_compressed` of generated clients and servers work through a tunnel as without one.
//! `send_compressed` of a tunnel compresses what its end sends, calls of other clients too. A relay counts the bytes
//! on the wire.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use example_support::echo::Echo;
use example_support::serve::on_loopback;
use example_support::test::EchoRequest;
use example_support::test::echo_service_client::EchoServiceClient;
use example_support::test::echo_service_server::EchoServiceServer;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Endpoint, Server};
use tunnel_client::{ForwardTunnel, endpoint_for_tunnels};
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

/// What is compressed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Compressed {
    Nothing,
    /// The messages of the client and of the service, by gzip.
    Calls,
    /// The tunnel, at both ends, by zstd.
    Tunnel,
}

#[tokio::main]
async fn main() -> Result<()> {
    let plain = bytes_on_the_wire(Compressed::Nothing).await?;
    for compressed in [Compressed::Calls, Compressed::Tunnel] {
        let bytes = bytes_on_the_wire(compressed).await?;
        ensure!(bytes * 4 < plain, "{bytes} bytes are not much less");
    }
    println!("✓ Both ways send less than a quarter of the bytes");
    Ok(())
}

/// Sends a text of 400 kB to the service and back, and returns the bytes that both directions took.
async fn bytes_on_the_wire(compressed: Compressed) -> Result<u64> {
    let mut service = EchoServiceServer::new(Echo).accept_compressed(CompressionEncoding::Gzip);
    if compressed == Compressed::Calls {
        service = service.send_compressed(CompressionEncoding::Gzip);
    }
    let mut handler = TunnelServiceHandler::builder().add_service(service);
    if compressed == Compressed::Tunnel {
        handler = handler.send_compressed(CompressionEncoding::Zstd);
    }
    let server = server_for_tunnels(Server::builder()).add_service(handler.build().service());
    let (address, counted) = relay(on_loopback(server).await?).await?;

    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let connection = endpoint_for_tunnels(endpoint).connect().await?;
    let mut tunnel = ForwardTunnel::new(connection);
    if compressed == Compressed::Tunnel {
        tunnel = tunnel.send_compressed(CompressionEncoding::Zstd);
    }
    let tunnel = tunnel.open().await?;
    let mut echo = EchoServiceClient::new(tunnel.clone());
    if compressed == Compressed::Calls {
        echo = echo
            .send_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Gzip);
    }
    let message = r#"{"sensor":"inlet","celsius":21.5},"#.repeat(12_000);
    let answer = echo.echo(EchoRequest { message }).await?.into_inner();
    ensure!(answer.message.len() > 400_000, "the text is cut");
    tunnel.close().await;
    drop((echo, tunnel));

    let bytes = counted.await??;
    println!("{compressed:?} compressed: {bytes} bytes");
    Ok(bytes)
}

/// Passes one connection on, and counts its bytes until it is closed.
async fn relay(to: SocketAddr) -> Result<(SocketAddr, JoinHandle<Result<u64>>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let counting = tokio::spawn(async move {
        let (mut near, _) = listener.accept().await?;
        let mut far = TcpStream::connect(to).await?;
        let (up, down) = copy_bidirectional(&mut near, &mut far).await?;
        Ok(up + down)
    });
    Ok((address, counting))
}
