//! The transport in process, over pipes that break, fill up or carry invalid bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use custom_transport::{Call, CallError, IncomingCall, Tunnel};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinSet;
use tunnel_core::{
    Code, Config, ConnectionError, EndReason, Metadata, OpenError, Side, Status, TransportCause,
    WriteError,
};

/// The capacity of a pipe in bytes, which is less than most frames.
const NARROW: usize = 1000;

/// Longer than any test takes.
const HOUR: Duration = Duration::from_secs(3600);

fn joined(pipe: usize) -> (Tunnel, Tunnel) {
    let (near, far) = duplex(pipe);
    (over(Side::Caller, near), over(Side::Handler, far))
}

fn over(side: Side, socket: DuplexStream) -> Tunnel {
    Tunnel::over(side, socket, Config::default())
}

async fn open(caller: &Tunnel) -> Call {
    caller
        .open("/test/Test", Metadata::new())
        .await
        .expect("the tunnel is up")
}

/// A call at its caller and at its handler.
async fn call(caller: &Tunnel, handler: &Tunnel) -> (Call, Call) {
    let (near, far) = tokio::join!(open(caller), handler.accept());
    (near, far.expect("the call arrives").call)
}

fn code_of(result: Result<Option<Bytes>, CallError>) -> Code {
    match result {
        Err(CallError::Status(status)) => status.code,
        other => panic!("not the end of a call: {other:?}"),
    }
}

async fn wait_until_alone() {
    let metrics = tokio::runtime::Handle::current().metrics();
    while metrics.num_alive_tasks() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_call_carries_its_method_its_metadata_and_its_status() {
    let (caller, handler) = joined(NARROW);
    let metadata: Metadata = [("tenant", "blue"), ("tag", "a")].into_iter().collect();
    let near = caller.open("test/Method", metadata.clone()).await;
    let Call { tx, mut rx } = near.expect("the tunnel is up");
    tx.finish().expect("it is in flight");

    let incoming = handler.accept().await.expect("the call arrives");
    let IncomingCall {
        method,
        metadata: seen,
        call,
    } = incoming;
    assert_eq!((method.as_str(), &seen), ("/test/Method", &metadata));
    let Call {
        tx,
        rx: mut requests,
    } = call;
    assert_eq!(requests.receive().await, Ok(None));
    let status = Status::new(Code::NotFound, "no such thing");
    tx.close(status.clone()).expect("it is in flight");

    let ended = Err(CallError::Status(status));
    assert_eq!(rx.receive().await, ended);
    assert_eq!(rx.receive().await, ended, "and so it stays");
}

#[tokio::test]
async fn both_directions_full_at_once_do_not_block_each_other() {
    let (caller, handler) = joined(NARROW);
    let mut ends = JoinSet::new();
    for n in 0..8 {
        let (near, far) = call(&caller, &handler).await;
        ends.spawn(send_and_receive(near, n));
        ends.spawn(send_and_receive(far, n));
    }
    // Kept until all are done, because dropping a call cancels it.
    let calls = ends.join_all().await;
    assert_eq!(calls.len(), 16);
}

async fn send_and_receive(call: Call, n: u8) -> Call {
    let Call { mut tx, mut rx } = call;
    let message = Bytes::from(vec![n; 300_000]);
    let sending = async {
        for _ in 0..8 {
            tx.send(message.clone()).await.expect("it is in flight");
        }
    };
    let receiving = async {
        for _ in 0..8 {
            let received = rx.receive().await.expect("no end").expect("no end");
            assert!(received == message, "another call's message");
        }
    };
    tokio::join!(sending, receiving);
    Call { tx, rx }
}

#[tokio::test]
async fn one_who_does_not_read_stops_its_sender_and_nobody_else() {
    let (caller, handler) = joined(64 << 10);
    let (mut stuck, unread) = call(&caller, &handler).await;
    let message = Bytes::from(vec![0; 100_000]);
    let clog = async {
        loop {
            stuck
                .tx
                .send(message.clone())
                .await
                .expect("it is in flight");
        }
    };
    let others = async {
        for n in 0..100 {
            let (mut near, mut far) = call(&caller, &handler).await;
            let message = Bytes::from(format!("message {n}"));
            near.tx
                .send(message.clone())
                .await
                .expect("it is in flight");
            assert_eq!(far.rx.receive().await, Ok(Some(message)));
        }
    };
    tokio::select! {
        () = clog => {}
        () = others => {}
    }
    drop(unread);
}

#[tokio::test]
async fn a_receive_that_was_given_up_loses_nothing() {
    let (caller, handler) = joined(NARROW);
    let (mut near, mut far) = call(&caller, &handler).await;
    let receiving = async {
        let mut received = Vec::new();
        while received.len() < 50 {
            tokio::select! {
                biased;
                message = far.rx.receive() => received.extend(message.expect("in flight")),
                () = tokio::task::yield_now() => {}
            }
        }
        received
    };
    let sending = async {
        for n in 0..50u8 {
            near.tx
                .send(vec![n; 2000].into())
                .await
                .expect("it is in flight");
        }
    };
    let (received, ()) = tokio::join!(receiving, sending);
    let expected: Vec<_> = (0..50u8).map(|n| Bytes::from(vec![n; 2000])).collect();
    assert!(received == expected, "lost or out of order");
}

#[tokio::test]
async fn a_caller_that_goes_cancels_and_a_handler_that_goes_fails_the_call() {
    let (caller, handler) = joined(NARROW);
    let (near, mut far) = call(&caller, &handler).await;
    drop(near);
    assert_eq!(code_of(far.rx.receive().await), Code::Cancelled);
    let sent = far.tx.send(Bytes::new()).await;
    assert_eq!(sent, Err(CallError::Write(WriteError::Gone)));

    let (mut near, far) = call(&caller, &handler).await;
    drop(far);
    assert_eq!(code_of(near.rx.receive().await), Code::Internal);
}

#[tokio::test]
async fn a_call_that_is_cancelled_before_it_was_accepted_is_never_seen() {
    let (caller, handler) = joined(NARROW);
    drop(open(&caller).await);
    let mut second = open(&caller).await;
    second
        .tx
        .send("second".into())
        .await
        .expect("it is in flight");
    // Both arrive before they are read.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let mut seen = handler.accept().await.expect("a call arrives").call;
    assert_eq!(seen.rx.receive().await, Ok(Some("second".into())));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_kept_at_both_ends() {
    let (caller, handler) = joined(NARROW);
    let metadata: Metadata = [("grpc-timeout", "3S")].into_iter().collect();
    let near = caller.open("/test/Slow", metadata).await;
    let mut near = near.expect("the tunnel is up");
    let mut far = handler.accept().await.expect("the call arrives").call;
    let (near, far) = tokio::join!(near.rx.receive(), far.rx.receive());
    assert_eq!(code_of(near), Code::DeadlineExceeded);
    assert!(matches!(
        code_of(far),
        Code::DeadlineExceeded | Code::Cancelled
    ));
}

#[tokio::test]
async fn draining_lets_calls_finish_and_refuses_new_ones() {
    let (caller, handler) = joined(NARROW);
    let (mut near, mut far) = call(&caller, &handler).await;
    let handler = Arc::new(handler);
    let draining = Arc::clone(&handler);
    let draining = tokio::spawn(async move { draining.drain(HOUR).await });
    let refused = loop {
        match caller.open("/test/Late", Metadata::new()).await {
            Err(error) => break error,
            Ok(mut late) => tokio::select! {
                end = late.rx.receive() => assert_eq!(code_of(end), Code::Unavailable),
                // It came in time.
                came = handler.accept() => assert!(came.is_some()),
            },
        }
    };
    assert_eq!(refused, CallError::Open(OpenError::Draining));
    near.tx
        .send("still there?".into())
        .await
        .expect("it is in flight");
    assert_eq!(far.rx.receive().await, Ok(Some("still there?".into())));
    far.tx.close(Status::OK).expect("it is in flight");
    assert_eq!(near.rx.receive().await, Ok(None));
    assert_eq!(draining.await.expect("no panic"), EndReason::Drained);
    caller.closed().await;
}

#[tokio::test]
async fn what_arrived_can_be_read_when_the_tunnel_is_over() {
    let (caller, handler) = joined(64 << 10);
    let (mut near, mut far) = call(&caller, &handler).await;
    far.tx
        .send("the last words".into())
        .await
        .expect("it is in flight");
    far.tx.close(Status::OK).expect("it is in flight");
    handler.drain(HOUR).await;
    caller.closed().await;
    assert_eq!(near.rx.receive().await, Ok(Some("the last words".into())));
    assert_eq!(near.rx.receive().await, Ok(None));
}

#[tokio::test]
async fn a_tunnel_that_is_closed_fails_its_calls_at_both_ends() {
    let (caller, handler) = joined(NARROW);
    let (mut near, mut far) = call(&caller, &handler).await;
    let (reason, near) = tokio::join!(caller.close(), near.rx.receive());
    assert_eq!(reason, EndReason::Closed);
    assert_eq!(code_of(near), Code::Unavailable);
    assert_eq!(code_of(far.rx.receive().await), Code::Unavailable);
    assert_eq!(handler.closed().await, EndReason::PeerClosed);
    assert!(handler.accept().await.is_none());
}

#[tokio::test]
async fn nothing_is_left_when_all_was_dropped() {
    let (caller, handler) = joined(NARROW);
    let calls = call(&caller, &handler).await;
    drop(caller);
    drop(calls);
    assert_eq!(handler.closed().await, EndReason::PeerClosed);
    drop(handler);
    wait_until_alone().await;
}

#[tokio::test]
async fn a_connection_that_breaks_off_inside_a_frame_is_lost() {
    let (mut near, far) = duplex(NARROW);
    let handler = over(Side::Handler, far);
    near.write_all(&[0, 0, 0, 0, 9, 1])
        .await
        .expect("it is open");
    drop(near);
    let reason = handler.closed().await;
    let cause = reason.transport_error().map(|error| error.cause());
    assert_eq!(cause, Some(TransportCause::EndedInsideFrame));
}

#[tokio::test]
async fn rubbish_ends_the_tunnel_and_says_so() {
    let (mut near, far) = duplex(NARROW);
    let handler = over(Side::Handler, far);
    near.write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .expect("it is open");
    let ended = async { handler.closed().await };
    let close = async { drop(near) };
    let (reason, ()) = tokio::join!(ended, close);
    assert!(
        matches!(reason, EndReason::Error(ConnectionError::Undecodable(_))),
        "{reason:?}"
    );
}
