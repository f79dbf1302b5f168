//! A WebSocket in process, over pipes that are narrow, and ended in every way.

use custom_transport::{Call, Tunnel};
use futures::{SinkExt, StreamExt};
use tokio::io::{DuplexStream, duplex};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tunnel_core::{Config, EndReason, Metadata, Side, TransportCause};
use web_socket::byte_stream;

/// Less than most frames, in bytes.
const NARROW: usize = 1000;

/// The two ends of a WebSocket: a client and a server.
async fn joined() -> (WebSocketStream<DuplexStream>, WebSocketStream<DuplexStream>) {
    let (near, far) = duplex(NARROW);
    (
        WebSocketStream::from_raw_socket(near, Role::Client, None).await,
        WebSocketStream::from_raw_socket(far, Role::Server, None).await,
    )
}

fn over(side: Side, socket: WebSocketStream<DuplexStream>) -> Tunnel {
    Tunnel::over(side, byte_stream(socket), Config::default())
}

fn cause(reason: &EndReason) -> Option<TransportCause> {
    reason.transport_error().map(|error| error.cause())
}

/// A caller without anybody at its far end but the socket.
async fn alone() -> (Tunnel, WebSocketStream<DuplexStream>) {
    let (near, far) = joined().await;
    (over(Side::Caller, near), far)
}

#[tokio::test]
async fn messages_larger_than_the_pipe_go_both_ways_at_once() {
    let (near, far) = joined().await;
    let (caller, handler) = (over(Side::Caller, near), over(Side::Handler, far));
    let (near, far) = tokio::join!(caller.open("/test/Test", Metadata::new()), handler.accept());
    let near = near.expect("the tunnel is up");
    let far = far.expect("the call arrives").call;
    // Kept until both are done, because dropping a call cancels it.
    let _calls = tokio::join!(exchange(near, 1), exchange(far, 2));
    let (reason, _) = tokio::join!(caller.close(), handler.closed());
    assert_eq!(reason, EndReason::Closed);
}

async fn exchange(call: Call, n: u8) -> Call {
    let Call { mut tx, mut rx } = call;
    let sending = tx.send(vec![n; 300_000].into());
    let (sent, received) = tokio::join!(sending, rx.receive());
    sent.expect("in flight");
    assert_eq!(
        received.expect("in flight").expect("a message").len(),
        300_000
    );
    Call { tx, rx }
}

#[tokio::test]
async fn a_close_frame_ends_the_tunnel_cleanly() {
    let (caller, mut peer) = alone().await;
    peer.close(None).await.expect("it is open");
    let closing = async { while let Some(Ok(_)) = peer.next().await {} };
    let (reason, ()) = tokio::join!(caller.closed(), closing);
    assert_eq!(reason, EndReason::PeerClosed);
}

#[tokio::test]
async fn a_connection_that_breaks_without_a_close_frame_is_lost() {
    let (caller, peer) = alone().await;
    drop(peer);
    assert_eq!(cause(&caller.closed().await), Some(TransportCause::Io));
}

#[tokio::test]
async fn pings_and_empty_messages_say_nothing_and_a_text_message_is_an_error() {
    let (caller, mut peer) = alone().await;
    for message in [
        Message::Ping("still there?".into()),
        Message::Binary("".into()),
        Message::Text("hello".into()),
    ] {
        peer.send(message).await.expect("it is open");
    }
    let draining = async { while let Some(Ok(_)) = peer.next().await {} };
    let (reason, ()) = tokio::join!(caller.closed(), draining);
    assert_eq!(cause(&reason), Some(TransportCause::Io));
    let text = tunnel_core::Report(&reason).to_string();
    assert!(text.contains("a text message"), "{text}");
}
