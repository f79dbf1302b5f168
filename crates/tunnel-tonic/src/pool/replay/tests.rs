//! Tests of request bodies that are read more than once.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use futures::executor::block_on;
use http_body::Body as _;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::*;

type Piece = Result<Frame<Bytes>, Status>;

/// A body whose pieces the test sends.
fn fed() -> (mpsc::UnboundedSender<Piece>, Body) {
    let (feed, pieces) = mpsc::unbounded_channel();
    let body = StreamBody::new(UnboundedReceiverStream::new(pieces));
    (feed, Body::new(body))
}

fn send(feed: &mpsc::UnboundedSender<Piece>, text: &str) {
    let piece = Bytes::copy_from_slice(text.as_bytes());
    feed.send(Ok(Frame::data(piece))).expect("somebody reads");
}

/// Reads all data that a body has without waiting.
fn read(body: &mut Body) -> String {
    let mut text = String::new();
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(frame)) = Pin::new(&mut *body).poll_frame(&mut cx) {
        let piece = frame.expect("no error").into_data().expect("data");
        text.push_str(std::str::from_utf8(&piece).expect("text"));
    }
    text
}

fn read_all(body: Body) -> Result<String, Status> {
    let bytes = block_on(body.collect())?.to_bytes();
    Ok(String::from_utf8(bytes.to_vec()).expect("text"))
}

#[test]
fn a_body_is_read_as_often_as_it_takes() {
    let (feed, body) = fed();
    send(&feed, "a");
    send(&feed, "b");
    let replay = Replay::new(body, 1000);
    assert_eq!(read(&mut replay.body()), "ab");
    send(&feed, "c");
    assert_eq!(read(&mut replay.body()), "abc");
    drop(feed);
    assert_eq!(read_all(replay.body()).expect("whole"), "abc");
    assert_eq!(read_all(replay.body()).expect("whole"), "abc");
}

#[test]
fn the_next_reader_waits_until_the_last_one_is_dropped() {
    let (feed, body) = fed();
    send(&feed, "a");
    let replay = Replay::new(body, 1000);
    let mut first = replay.body();
    assert_eq!(read(&mut first), "a");
    let mut second = replay.body();
    assert_eq!(read(&mut second), "a");
    send(&feed, "b");
    assert_eq!(read(&mut second), "", "the first one has the body");
    drop(first);
    assert_eq!(read(&mut second), "b");
}

#[test]
fn a_reader_that_was_replaced_reads_no_more() {
    let (feed, body) = fed();
    send(&feed, "a");
    let replay = Replay::new(body, 1000);
    let first = replay.body();
    let mut second = replay.body();
    assert_eq!(read(&mut second), "a");
    let error = read_all(first).expect_err("it was replaced");
    assert_eq!(error.code(), tonic::Code::Unavailable);
}

#[test]
fn beyond_the_limit_a_body_is_read_once_and_loses_nothing() {
    let (feed, body) = fed();
    let piece = "x".repeat(100);
    let replay = Replay::new(body, 270);
    let mut reader = replay.body();
    for _ in 0..2 {
        send(&feed, &piece);
        assert_eq!(read(&mut reader), piece);
    }
    // This piece begins below the limit and is kept whole.
    send(&feed, &"y".repeat(1000));
    assert_eq!(read(&mut reader).len(), 1000);
    assert!(!lock(&replay.shared).lost);
    send(&feed, "z");
    assert_eq!(read(&mut reader), "z");
    assert!(lock(&replay.shared).lost);
    drop(feed);
    assert_eq!(read_all(reader).expect("it ends"), "");
    assert_eq!(lock(&replay.shared).kept.capacity(), 0);
    assert_eq!(replay.take_back(), TakenBack::Lost);
}

#[test]
fn nothing_is_kept_after_a_call_is_committed() {
    let (feed, body) = fed();
    for text in ["a", "b"] {
        send(&feed, text);
    }
    let replay = Replay::new(body, 1000);
    let mut first = replay.body();
    assert_eq!(read(&mut first), "ab");
    drop(first);
    let mut second = replay.body();
    let mut cx = Context::from_waker(Waker::noop());
    // One kept piece is read before the call is committed.
    assert!(Pin::new(&mut second).poll_frame(&mut cx).is_ready());
    replay.commit();
    assert_eq!(lock(&replay.shared).kept.len(), 1);
    assert_eq!(read(&mut second), "b");
    assert_eq!(lock(&replay.shared).kept.capacity(), 0);
    send(&feed, "c");
    assert_eq!(read(&mut second), "c");
    assert_eq!(lock(&replay.shared).kept.capacity(), 0);
    assert_eq!(replay.take_back(), TakenBack::Lost);
}

#[test]
fn the_failure_of_a_body_is_passed_on_and_the_call_does_not_move() {
    let (feed, body) = fed();
    feed.send(Err(Status::aborted("no"))).expect("read");
    let replay = Replay::new(body, 1000);
    let error = read_all(replay.body()).expect_err("it fails");
    assert_eq!(error.code(), tonic::Code::Aborted);
    assert_eq!(replay.take_back(), TakenBack::Failed);
}

/// A body that does something in the middle of its first poll.
struct Midway {
    during: Option<Box<dyn FnOnce() + Send>>,
    /// The pieces that it then yields, from last to first.
    then: Vec<Option<Piece>>,
}

impl http_body::Body for Midway {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(during) = self.during.take() {
            during();
        }
        Poll::Ready(self.then.pop().flatten())
    }
}

/// A waker that counts its wakes.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Polls a body by its first reader, and moves the call in the middle of that poll, as can happen
/// if the call and the reader are separate tasks. Returns the next reader, which waits, and the
/// number of its wakes until the first reader is dropped.
fn moved_midway(limit: usize, then: Vec<Option<Piece>>) -> (Result<Body, TakenBack>, usize) {
    let wakes = Arc::new(Wakes::default());
    let next: Arc<Mutex<Option<Result<Body, TakenBack>>>> = Arc::default();
    let replay: Arc<OnceLock<Replay>> = Arc::default();
    let during = {
        let (wakes, next, replay) = (wakes.clone(), next.clone(), replay.clone());
        move || {
            let replay = replay.get().expect("it is read");
            let moved = match replay.take_back() {
                TakenBack::Whole => {
                    let mut body = replay.body();
                    let waker = Waker::from(wakes.clone());
                    let mut cx = Context::from_waker(&waker);
                    assert!(Pin::new(&mut body).poll_frame(&mut cx).is_pending());
                    Ok(body)
                }
                other => Err(other),
            };
            *next.lock().expect("no panic") = Some(moved);
        }
    };
    let during: Box<dyn FnOnce() + Send> = Box::new(during);
    let during = Some(during);
    let body = Body::new(Midway { during, then });
    let _ = replay.set(Replay::new(body, limit));
    let mut first = replay.get().expect("set").body();
    let mut cx = Context::from_waker(Waker::noop());
    let _ = Pin::new(&mut first).poll_frame(&mut cx);
    drop(first);
    let next = next
        .lock()
        .expect("no panic")
        .take()
        .expect("it was polled");
    (next, wakes.0.load(Ordering::Relaxed))
}

fn piece(text: &'static str) -> Option<Piece> {
    Some(Ok(Frame::data(Bytes::from_static(text.as_bytes()))))
}

#[test]
fn the_next_reader_gets_an_end_that_the_last_one_read() {
    let (next, wakes) = moved_midway(1000, vec![None]);
    assert!(wakes > 0, "it would wait for ever");
    assert_eq!(read_all(next.expect("whole")).expect("in order"), "");
}

#[test]
fn the_next_reader_gets_a_failure_that_the_last_one_read() {
    let (next, wakes) = moved_midway(1000, vec![Some(Err(Status::aborted("no")))]);
    assert!(wakes > 0, "it would wait for ever");
    let error = read_all(next.expect("whole")).expect_err("it has failed");
    assert_eq!(error.code(), tonic::Code::Aborted);
}

/// This also holds for a piece beyond the limit: it is not kept, but goes to the next reader.
#[test]
fn the_next_reader_gets_a_piece_that_the_last_one_read() {
    for limit in [1000, 0] {
        let (next, wakes) = moved_midway(limit, vec![None, piece("b"), piece("a")]);
        assert!(wakes > 0, "it would wait for ever");
        assert_eq!(read_all(next.expect("whole")).expect("in order"), "ab");
    }
}

/// No reader can read between the failure of one try and the beginning of the next.
#[test]
fn a_body_that_was_taken_back_whole_stays_so() {
    let (feed, body) = fed();
    send(&feed, "a");
    let replay = Replay::new(body, 20);
    let mut first = replay.body();
    assert_eq!(read(&mut first), "a");
    assert_eq!(replay.take_back(), TakenBack::Whole);
    send(&feed, "b");
    let mut cx = Context::from_waker(Waker::noop());
    let polled = Pin::new(&mut first).poll_frame(&mut cx);
    assert!(matches!(polled, Poll::Ready(Some(Err(_)))), "{polled:?}");
    drop(first);
    assert_eq!(read(&mut replay.body()), "ab");
}
