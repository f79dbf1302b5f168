//! Hostile peers: tunnels on their own connections that send the frames that take longest to
//! decode, as fast as the server reads them.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use anyhow::{Context as _, Result};
use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Body, Frame};
use prost::encoding::encode_varint;
use tokio::task::JoinSet;
use tonic::client::GrpcService as _;
use tonic::codegen::http::Request;
use tonic::transport::Channel;

use super::connect;
use crate::job::Measured;

/// The number of metadata entries in a frame: as many as a server decodes before it refuses the
/// call.
const ENTRIES: usize = 4000;

/// The number of frames in one write, about a quarter of a megabyte.
const FRAMES: usize = 30;

/// Connections that flood the server until this value is dropped.
#[derive(Default)]
pub(super) struct Flood(JoinSet<()>);

impl Flood {
    pub(super) async fn start(&mut self, port: u16, connections: usize) -> Result<Measured> {
        let start = Instant::now();
        for _ in 0..connections {
            let channel = connect::endpoint(port, true)?.connect().await;
            self.0
                .spawn(flood(channel.context("cannot connect to the server")?));
        }
        Ok(Measured {
            count: connections as u64,
            seconds: start.elapsed().as_secs_f64(),
            ..Measured::default()
        })
    }
}

/// Opens a tunnel and floods it. Opens another one whenever the server ends it.
async fn flood(mut channel: Channel) {
    loop {
        let request = Request::post("/grpctunnel.v1.TunnelService/OpenTunnel")
            .header("content-type", "application/grpc")
            .header("grpctunnel-negotiate", "on")
            .body(tonic::body::Body::new(Openings::new()));
        let Ok(request) = request else { return };
        if std::future::poll_fn(|cx| channel.poll_ready(cx))
            .await
            .is_err()
        {
            return;
        }
        let Ok(response) = channel.call(request).await else {
            return;
        };
        // Read the refusals: the server stops reading from a peer that does not read them.
        let mut body = response.into_body();
        while let Some(Ok(_)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
        {
        }
    }
}

/// An endless body of new calls, each with [`ENTRIES`] empty metadata entries.
struct Openings {
    id: u64,
    /// The bytes of a frame after its stream id.
    rest: Bytes,
}

impl Openings {
    fn new() -> Self {
        let entries = b"\x0a\x00".repeat(ENTRIES);
        let headers = field(2, &entries);
        let opening = [field(1, b"/tunnel.bench.v1.Bench/Unary"), headers].concat();
        Self {
            id: 1,
            rest: field(2, &opening).into(),
        }
    }
}

/// Encodes a protobuf field of type `bytes`.
fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_varint(number << 3 | 2, &mut out);
    encode_varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

impl Body for Openings {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = self.get_mut();
        let mut frames = BytesMut::with_capacity(FRAMES * (this.rest.len() + 16));
        for _ in 0..FRAMES {
            let mut id = vec![0x08];
            encode_varint(this.id, &mut id);
            this.id += 1;
            frames.put_u8(0);
            // A frame is smaller than 16 KiB.
            frames.put_u32((id.len() + this.rest.len()) as u32);
            frames.put_slice(&id);
            frames.put_slice(&this.rest);
        }
        Poll::Ready(Some(Ok(Frame::data(frames.freeze()))))
    }
}
