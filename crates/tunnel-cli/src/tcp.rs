//! TCP as a bidirectional call: `/tunnel.tcp.v1.Tcp/NAME`, a stream of [`Chunk`]s in each direction.
//!
//! The name is a method's, so that access files allow it as they do methods. Flow control is that of the call: a socket
//! that is not written to is not read at the other end.

use std::io;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _, stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tonic::{Status, Streaming};

/// What the path of a call begins with. The name of the port follows.
pub(crate) const PATH: &str = "/tunnel.tcp.v1.Tcp/";

/// The largest chunk that is read at once.
const CHUNK: usize = 64 << 10;

/// A piece of one direction.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Chunk {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) data: Bytes,
    /// The direction has ended, as by shutdown(2). A stream that ends without this was broken off.
    #[prost(bool, tag = "2")]
    pub(crate) end: bool,
}

/// What a socket receives, with a last chunk that says so.
fn read(socket: OwnedReadHalf) -> impl Stream<Item = io::Result<Chunk>> + Send {
    stream::unfold(Some(socket), |socket| async {
        let mut socket = socket?;
        let mut data = BytesMut::with_capacity(CHUNK);
        match socket.read_buf(&mut data).await {
            Ok(0) => Some((
                Ok(Chunk {
                    data: Bytes::new(),
                    end: true,
                }),
                None,
            )),
            Ok(_) => Some((
                Ok(Chunk {
                    data: data.freeze(),
                    end: false,
                }),
                Some(socket),
            )),
            Err(error) => Some((Err(error), None)),
        }
    })
}

/// Sends chunks to a socket until the stream ends; returns whether there was a last chunk.
async fn write(mut chunks: Streaming<Chunk>, mut socket: OwnedWriteHalf) -> Result<bool, Status> {
    let mut ended = false;
    while let Some(chunk) = chunks.message().await? {
        socket.write_all(&chunk.data).await.map_err(broken)?;
        if chunk.end {
            socket.shutdown().await.map_err(broken)?;
            ended = true;
        }
    }
    Ok(ended)
}

fn broken(error: io::Error) -> Status {
    Status::aborted(format!("the TCP connection broke: {error}"))
}

/// The agent's end of a call: what the socket receives, until both directions have ended.
pub(crate) fn serve(
    socket: TcpStream,
    requests: Streaming<Chunk>,
) -> impl Stream<Item = Result<Chunk, Status>> + Send {
    let (received, sent) = socket.into_split();
    let writing = stream::once(write(requests, sent));
    let failures = writing.filter_map(|written| async {
        match written {
            Ok(true) => None,
            Ok(false) => Some(Err(Status::aborted(
                "the TCP connection of the caller broke",
            ))),
            Err(status) => Some(Err(status)),
        }
    });
    stream::select(read(received).map(|chunk| chunk.map_err(broken)), failures)
}

/// The caller's end: passes a connection on by a call.
pub(crate) async fn call<C>(channel: C, name: &str, socket: TcpStream) -> Result<(), Status>
where
    C: tonic::client::GrpcService<tonic::body::Body>,
    C::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <C::ResponseBody as http_body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    C::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let path = format!("{PATH}{name}").parse();
    let path = path.map_err(|_| Status::invalid_argument(format!("{name:?} cannot be a name")))?;
    let (received, sent) = socket.into_split();
    let mut client = tonic::client::Grpc::new(channel);
    client
        .ready()
        .await
        .map_err(|error| Status::from_error(error.into()))?;
    let codec = tonic_prost::ProstCodec::<Chunk, Chunk>::default();
    // Without a last chunk the agent knows that the connection broke.
    let chunks = read(received).scan((), |(), chunk| std::future::ready(chunk.ok()));
    let response = client
        .streaming(tonic::Request::new(chunks), path, codec)
        .await?;
    write(response.into_inner(), sent).await.map(|_ended| ())
}
