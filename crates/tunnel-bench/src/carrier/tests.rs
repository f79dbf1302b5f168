//! Tests that both carriers deliver bytes unchanged, with an echo service.

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::proto::Piece;
use super::proto::carrier_client::CarrierClient;
use super::proto::carrier_server::{Carrier, CarrierServer};
use super::{http2, yamux};

struct Echo;

#[tonic::async_trait]
impl Carrier for Echo {
    type CarryStream = Streaming<Piece>;

    async fn carry(
        &self,
        request: Request<Streaming<Piece>>,
    ) -> Result<Response<Self::CarryStream>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}

async fn listen() -> (TcpListener, Routes, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, Routes::new(CarrierServer::new(Echo)), port)
}

async fn over_yamux() -> Channel {
    let (listener, routes, port) = listen().await;
    tokio::spawn(yamux::serve(listener, routes));
    yamux::connect(port).await.unwrap()
}

async fn over_http2() -> Channel {
    let (listener, routes, port) = listen().await;
    tokio::spawn(http2::serve(listener, routes));
    http2::connect(port).await.unwrap()
}

/// Messages from zero bytes to more than any buffer on the path.
fn pieces() -> Vec<Piece> {
    let sizes = [0, 1, 1_000, 64 << 10, 3_000_000];
    let bytes = |size| (0..size).map(|n: u32| (n % 251) as u8).collect::<Bytes>();
    let pieces = sizes.map(|size| Piece { data: bytes(size) });
    pieces.into()
}

async fn echoed(channel: Channel) -> Vec<Piece> {
    let sent = stream::iter(pieces());
    let echo = CarrierClient::new(channel).carry(sent).await.unwrap();
    echo.into_inner().map(Result::unwrap).collect().await
}

#[tokio::test]
async fn yamux_brings_back_what_was_sent() {
    assert_eq!(echoed(over_yamux().await).await, pieces());
}

#[tokio::test]
async fn http2_in_a_stream_brings_back_what_was_sent() {
    assert_eq!(echoed(over_http2().await).await, pieces());
}

#[tokio::test]
async fn calls_share_a_carrier_at_the_same_time() {
    for channel in [over_yamux().await, over_http2().await] {
        let calls = (0..4).map(|_| echoed(channel.clone()));
        for echo in futures::future::join_all(calls).await {
            assert_eq!(echo, pieces());
        }
    }
}
