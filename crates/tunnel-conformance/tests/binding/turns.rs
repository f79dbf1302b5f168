//! The tunnel's tasks let other tasks run between many frames. A handler that runs in such a task
//! delays nothing.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;

use prost::Message as _;
use tokio::sync::mpsc::unbounded_channel;
use tonic::Code;
use tunnel_proto::grpctunnel::v1::{ClientToServer, client_to_server};
use tunnel_server::TunnelServiceHandler;

use crate::support::body::{Pieces, message, status};
use crate::support::guarded;
use crate::support::peer::RawCaller;
use crate::support::raw_service::{answers, response};

/// The most frames that one poll of a tunnel task may handle: a turn, and the rest of a lock.
const FRAMES_PER_TURN: usize = 1024 + 192;

/// The number of tasks of a serving tunnel. Each may take a turn before other tasks run.
const TASKS: usize = 2;

#[tokio::test]
async fn other_tasks_get_a_turn_between_a_hundred_thousand_small_frames() {
    const FRAMES: usize = 100_000;
    guarded(async {
        let service = answers(|request| async move {
            match request.uri().path() {
                "/raw.Service/Waits" => std::future::pending().await,
                _ => response(Pieces::all(vec![status("0")])),
            }
        });
        let handler = TunnelServiceHandler::builder().add_service(service).build();
        let mut caller = RawCaller::in_process(handler.service()).await;
        caller.begin(1, "/raw.Service/Waits");
        let frame = |stream_id, frame| {
            let frame = Some(frame);
            message(&ClientToServer { stream_id, frame }.encode_to_vec())
        };
        let mut piece = frame(1, client_to_server::Frame::WindowUpdate(1)).repeat(FRAMES);
        piece.extend(frame(1, client_to_server::Frame::HalfClose(())));
        let turns = Arc::new(AtomicUsize::new(0));
        let other = tokio::spawn({
            let turns = turns.clone();
            poll_fn::<(), _>(move |cx| {
                turns.fetch_add(1, Ordering::Relaxed);
                cx.waker().wake_by_ref();
                Poll::Pending
            })
        });
        caller.say_bytes(piece);
        caller.call(3, "/raw.Service/Any");
        assert_eq!(caller.expect_close(3).await.0, Code::Ok);
        let turns = turns.load(Ordering::Relaxed);
        assert!(turns >= FRAMES / (TASKS * FRAMES_PER_TURN), "{turns} turns");
        other.abort();
    })
    .await;
}

/// One of the tunnel's two tasks serves a single call. The other task keeps reading.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_computes_alone_does_not_hold_up_what_comes_after_it() {
    const ROUNDS: i64 = 20;
    guarded(async {
        let (end, computed) = mpsc::channel();
        let computed = Arc::new(Mutex::new(computed));
        let (begin, mut begun) = unbounded_channel();
        let service = answers(move |request| {
            let (begin, computed) = (begin.clone(), computed.clone());
            async move {
                if request.uri().path() == "/raw.Service/Compute" {
                    begin.send(()).expect("the test goes on");
                    let computed = computed.lock().expect("not poisoned").recv();
                    computed.expect("the test goes on");
                }
                response(Pieces::all(vec![status("0")]))
            }
        });
        let handler = TunnelServiceHandler::builder().add_service(service).build();
        let mut caller = RawCaller::in_process(handler.service()).await;
        let ids = (1..)
            .step_by(2)
            .take(3 * ROUNDS as usize)
            .collect::<Vec<_>>();
        for ids in ids.chunks(3) {
            caller.calls_at_once(ids[0]..=ids[0], "/raw.Service/Compute");
            begun.recv().await.expect("the handler runs");
            for id in &ids[1..] {
                caller.calls_at_once(*id..=*id, "/raw.Service/Any");
                assert_eq!(caller.expect_close(*id).await.0, Code::Ok);
            }
            end.send(()).expect("the handler waits");
            assert_eq!(caller.expect_close(ids[0]).await.0, Code::Ok);
        }
    })
    .await;
}
