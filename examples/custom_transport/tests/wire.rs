//! The bytes on the wire are `grpctunnel.v1`: its generated types read them.

use bytes::Bytes;
use custom_transport::{Call, Tunnel};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tunnel_core::{Config, EndReason, Metadata, Side};
use tunnel_proto::grpctunnel::v1::{
    ClientToServer, CloseStream, MessageData, ServerToClient, Settings, client_to_server,
    server_to_client,
};

/// Reads the next frame: a byte of flags, four of length, a protobuf message.
async fn next<F: Message + Default>(socket: &mut DuplexStream) -> F {
    let flags = socket.read_u8().await.expect("a frame");
    assert_eq!(flags, 0);
    let length = socket.read_u32().await.expect("a frame");
    let mut bytes = vec![0; length as usize];
    socket.read_exact(&mut bytes).await.expect("a frame");
    F::decode(&bytes[..]).expect("a valid frame")
}

async fn say(socket: &mut DuplexStream, frame: impl Message) {
    let bytes = frame.encode_to_vec();
    socket.write_u8(0).await.expect("it is open");
    socket
        .write_u32(bytes.len() as u32)
        .await
        .expect("it is open");
    socket.write_all(&bytes).await.expect("it is open");
}

/// Sends a handler's settings.
async fn say_settings(socket: &mut DuplexStream) {
    let settings = Settings {
        supported_protocol_revisions: vec![0, 1],
        initial_window_size: 65_536,
    };
    let frame = Some(server_to_client::Frame::Settings(settings));
    say(
        socket,
        ServerToClient {
            stream_id: -1,
            frame,
        },
    )
    .await;
}

async fn expect_kind(socket: &mut DuplexStream, id: i64) -> client_to_server::Frame {
    let frame: ClientToServer = next(socket).await;
    assert_eq!(frame.stream_id, id);
    frame.frame.expect("it has a kind")
}

#[tokio::test]
async fn a_caller_waits_for_settings_and_then_says_what_a_unary_call_says() {
    use client_to_server::Frame;

    let (near, mut peer) = duplex(64 << 10);
    let caller = Tunnel::over(Side::Caller, near, Config::default());
    let opening = tokio::spawn(async move {
        let call = caller.open("/test/Test", Metadata::new()).await;
        let Call { mut tx, rx } = call.expect("settings have come");
        tx.send("hello".into()).await.expect("it is in flight");
        tx.finish().expect("it is in flight");
        (caller, rx)
    });
    say_settings(&mut peer).await;

    let Frame::NewStream(opened) = expect_kind(&mut peer, 1).await else {
        panic!("a stream begins with its opening");
    };
    assert_eq!(opened.method_name, "/test/Test");
    assert_eq!(opened.protocol_revision, 1);
    let hello = MessageData {
        size: 5,
        data: Bytes::from("hello"),
        ..Default::default()
    };
    assert_eq!(
        expect_kind(&mut peer, 1).await,
        Frame::RequestMessage(hello)
    );
    assert_eq!(expect_kind(&mut peer, 1).await, Frame::HalfClose(()));
    drop(opening.await.expect("no panic"));
    assert_eq!(expect_kind(&mut peer, 1).await, Frame::Cancel(()));
}

#[tokio::test]
async fn a_handler_says_its_settings_first() {
    let (near, mut peer) = duplex(64 << 10);
    let _handler = Tunnel::over(Side::Handler, near, Config::default());
    let frame: ServerToClient = next(&mut peer).await;
    assert_eq!(frame.stream_id, -1);
    let Some(server_to_client::Frame::Settings(settings)) = frame.frame else {
        panic!("not settings: {frame:?}");
    };
    let window = Config::default().initial_window();
    assert_eq!(settings.initial_window_size, window);
}

#[tokio::test]
async fn the_last_words_of_a_peer_that_listens_no_more_are_heard() {
    use server_to_client::Frame;

    // So small that the caller is still writing when the peer closes.
    let (near, mut peer) = duplex(256);
    let caller = Tunnel::over(Side::Caller, near, Config::default());
    say_settings(&mut peer).await;
    let call = caller.open("/test/Test", Metadata::new()).await;
    let Call { mut tx, mut rx } = call.expect("settings have come");
    tx.send(vec![0; 10_000].into())
        .await
        .expect("it is in flight");
    let client_to_server::Frame::NewStream(_) = expect_kind(&mut peer, 1).await else {
        panic!("a stream begins with its opening");
    };
    let enough = MessageData {
        size: 7,
        data: Bytes::from("enough!"),
        ..Default::default()
    };
    for frame in [
        Frame::ResponseMessage(enough),
        Frame::CloseStream(CloseStream::default()),
    ] {
        say(
            &mut peer,
            ServerToClient {
                stream_id: 1,
                frame: Some(frame),
            },
        )
        .await;
    }
    drop(peer);
    assert_eq!(rx.receive().await, Ok(Some("enough!".into())));
    assert_eq!(rx.receive().await, Ok(None));
    assert_eq!(caller.closed().await, EndReason::PeerClosed);
}
