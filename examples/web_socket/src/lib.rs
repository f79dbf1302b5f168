//! A WebSocket as a byte stream, so that a tunnel can travel over it.
//!
//! Everything else is [`custom_transport`]'s: its tunnels take any byte stream. A tunnel's bytes
//! travel in binary messages. Where one message ends and the next begins means nothing, because the
//! frames of a tunnel say how long they are.

use std::io;

use bytes::Bytes;
use futures::{SinkExt, StreamExt, TryStreamExt, future};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

/// The bytes of a WebSocket's binary messages, in both directions.
///
/// Shutting down the writer sends a close frame; the reader ends at the peer's. A connection that
/// breaks without one, and a text message, are errors of the reader.
pub fn byte_stream<S>(socket: WebSocketStream<S>) -> impl AsyncRead + AsyncWrite + Send + 'static
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sink, stream) = socket.split();
    let received = stream
        .map_err(io::Error::other)
        .try_take_while(|message| future::ready(Ok(!message.is_close())))
        .try_filter_map(|message| future::ready(payload(message)));
    let sent = sink
        .with(|bytes: Bytes| future::ok::<_, Error>(Message::Binary(bytes)))
        .sink_map_err(io::Error::other);
    tokio::io::join(
        StreamReader::new(received),
        SinkWriter::new(CopyToBytes::new(sent)),
    )
}

/// The bytes that a message carries, if any.
fn payload(message: Message) -> io::Result<Option<Bytes>> {
    match message {
        // An empty piece would look like the end.
        Message::Binary(bytes) => Ok(Some(bytes).filter(|bytes| !bytes.is_empty())),
        // The library answers pings and close frames.
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => Ok(None),
        Message::Text(_) => {
            let error = "a text message, but a tunnel travels in binary messages";
            Err(io::Error::new(io::ErrorKind::InvalidData, error))
        }
    }
}
