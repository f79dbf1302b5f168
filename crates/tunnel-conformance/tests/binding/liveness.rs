//! Nothing waits forever, nothing spins, and back-pressure works.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::poll_immediate;
use futures::stream::{self, BoxStream, StreamExt};
use http_body::Frame;
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::{Code, Request, Response, Status, Streaming};
use tower::{Service, service_fn};
use tunnel_client::{Config, ConnectionError, EndReason, ForwardTunnel, TunnelError};
use tunnel_conformance::client::{call, open, run};
use tunnel_conformance::feed::Feed;
use tunnel_conformance::payload::{assert_sent, pattern, request};
use tunnel_conformance::proto::test_service_server::{TestService, TestServiceServer};
use tunnel_conformance::proto::{self, Script};
use tunnel_conformance::service::scripted;
use tunnel_conformance::{Kind, Probe};
use tunnel_server::TunnelServiceHandler;

use crate::support::body::{Piece, Pieces, data, message, read_all, status};
use crate::support::peer::raw_service;
use crate::support::raw_service::{answers, raw_outcome, raw_request, response};
use crate::support::{Far, assert_usable, client, eventually, guarded, one, one_request};

/// The number of messages a producer has, and their size below. Together they exceed every buffer
/// on the path. Each message is much smaller than any buffer.
const MESSAGES: u64 = 300;
const SIZE: usize = 10_000;

/// The number of messages that may be taken before the reader reads. They fill the window, the
/// stream's send buffer and one batch, with some margin.
const AHEAD: u64 = 40;

/// Handlers that use tasks, a common pattern: one task feeds the response, another reads the
/// request.
#[derive(Clone, Default)]
struct Spawning {
    produced: Arc<AtomicUsize>,
    ended: watch::Sender<Vec<Result<(), Code>>>,
}

type Responses = BoxStream<'static, Result<proto::Response, Status>>;

impl Spawning {
    /// Reads a request stream in its own task and records how the stream ended. Returns when the
    /// reader waits.
    async fn read(&self, mut requests: Streaming<proto::Request>) {
        let waits = Arc::new(Notify::new());
        let (ended, waiting) = (self.ended.clone(), waits.clone());
        tokio::spawn(async move {
            let end = loop {
                let mut next = pin!(requests.message());
                let next = match poll_immediate(next.as_mut()).await {
                    Some(next) => next,
                    None => {
                        waiting.notify_one();
                        next.await
                    }
                };
                match next {
                    Ok(Some(_)) => {}
                    Ok(None) => break Ok(()),
                    Err(status) => break Err(status.code()),
                }
            };
            ended.send_modify(|ended| ended.push(end));
        });
        waits.notified().await;
    }
}

#[tonic::async_trait]
impl TestService for Spawning {
    type ServerStreamStream = Responses;
    type BidiStream = Responses;

    async fn unary(&self, _: Request<proto::Request>) -> Result<Response<proto::Response>, Status> {
        Ok(Response::new(proto::Response::default()))
    }

    async fn server_stream(
        &self,
        _: Request<proto::Request>,
    ) -> Result<Response<Responses>, Status> {
        let (send, responses) = mpsc::channel(1);
        let produced = self.produced.clone();
        tokio::spawn(async move {
            for seed in 0..MESSAGES {
                let payload = pattern(seed, SIZE);
                let message = proto::Response {
                    payload,
                    ..Default::default()
                };
                if send.send(Ok(message)).await.is_err() {
                    break;
                }
                produced.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Response::new(ReceiverStream::new(responses).boxed()))
    }

    async fn client_stream(
        &self,
        requests: Request<Streaming<proto::Request>>,
    ) -> Result<Response<proto::Response>, Status> {
        let name = requests.metadata().get("x-end").cloned();
        self.read(requests.into_inner()).await;
        match name {
            None => Ok(Response::new(proto::Response::default())),
            Some(end) if end == "failure" => Err(Status::data_loss("no")),
            Some(_) => panic!("injected panic"),
        }
    }

    async fn bidi(
        &self,
        requests: Request<Streaming<proto::Request>>,
    ) -> Result<Response<Responses>, Status> {
        self.read(requests.into_inner()).await;
        Ok(Response::new(stream::pending().boxed()))
    }
}

/// The test uses one thread, so after each yield every other task has run.
async fn in_process<S>(service: S) -> (TunnelServiceHandler, tunnel_client::TunnelChannel)
where
    S: Service<
            http::Request<Body>,
            Response = http::Response<Body>,
            Error = std::convert::Infallible,
        > + tonic::server::NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    let handler = TunnelServiceHandler::builder().add_service(service).build();
    let tunnel = ForwardTunnel::new(handler.service()).open().await;
    (handler, tunnel.expect("the service accepts a tunnel"))
}

/// Yields often enough for every task to run many times.
async fn many_turns() {
    for _ in 0..20 * MESSAGES {
        tokio::task::yield_now().await;
    }
}

/// Each message from the feeding task wakes the call. Back-pressure must apply again each time.
#[tokio::test]
async fn responses_fed_one_by_one_are_held_back_by_a_caller_that_does_not_read() {
    guarded(async {
        let service = Spawning::default();
        let produced = service.produced.clone();
        let (handler, tunnel) = in_process(TestServiceServer::new(service)).await;
        let request = Script::default().request(one());
        let unread = open(&client(&tunnel), Kind::ServerStream, request).await;
        let unread = unread.expect("headers come");
        many_turns().await;
        let ahead = produced.load(Ordering::Relaxed) as u64;
        assert!(ahead <= AHEAD, "{ahead} messages ahead of a reader");
        let queued = handler.stats()[0].1.queued_bytes;
        assert!(queued <= 30 * SIZE, "{queued} bytes queued");
        let outcome = unread.outcome().await;
        assert_sent(outcome.expect_success(), MESSAGES, SIZE, 0);
    })
    .await;
}

/// The same for requests.
#[tokio::test]
async fn requests_fed_one_by_one_are_held_back_by_a_handler_that_does_not_read() {
    guarded(async {
        let probe = Probe::default();
        let (_handler, tunnel) = in_process(scripted(&probe)).await;
        let (send, requests) = mpsc::channel(1);
        let (feed, watch) = Feed::new(ReceiverStream::new(requests));
        tokio::spawn(async move {
            for seed in 0..MESSAGES {
                let _ = send.send(request(seed, SIZE)).await;
            }
        });
        let client = client(&tunnel);
        let script = Script::named("unread")
            .wait("read")
            .receive_all()
            .summarize();
        let request = script.request(feed);
        let upload = tokio::spawn(async move { call(&client, Kind::ClientStream, request).await });
        probe.started("unread").await;
        many_turns().await;
        let ahead = watch.taken();
        assert!(ahead <= AHEAD, "{ahead} messages ahead of a reader");
        probe.open("read");
        let outcome = upload.await.expect("no panic");
        let received = outcome.expect_success()[0].received.expect("a summary");
        assert_eq!(received.messages, MESSAGES);
    })
    .await;
}

/// A request stream that its handler gave to another task must end with the call, for any reason.
/// The caller sends nothing more, so the reader would otherwise wait forever.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_stream_that_outlives_its_call_comes_to_an_end() {
    guarded(async {
        let service = Spawning::default();
        let mut ended = service.ended.subscribe();
        let (handler, tunnel) = in_process(TestServiceServer::new(service)).await;
        for (before, end) in [None, Some("failure"), Some("panic")]
            .into_iter()
            .enumerate()
        {
            let (feed, mut watch) = Feed::open(one_request());
            let mut request = Request::new(feed);
            if let Some(end) = end {
                let end = end.parse().expect("legal");
                request.metadata_mut().insert("x-end", end);
            }
            let outcome = call(&client(&tunnel), Kind::ClientStream, request).await;
            assert_eq!(outcome.end.is_ok(), end.is_none());
            watch.dropped().await;
            let ended = ended.wait_for(|ended| ended.len() == before + 1).await;
            let last = ended.expect("the service lives").last().copied();
            assert!(matches!(last, Some(Err(_))), "no clean end: {last:?}");
        }
        // The end of the tunnel is not a clean end of the stream either.
        let (feed, _watch) = Feed::open(one_request());
        let ongoing = open(&client(&tunnel), Kind::Bidi, Request::new(feed)).await;
        ongoing.expect("headers come");
        eventually(|| handler.kept_calls() == 0).await;
        let (feed, _watch) = Feed::open(one_request());
        let ongoing = open(&client(&tunnel), Kind::Bidi, Request::new(feed)).await;
        let _ongoing = ongoing.expect("headers come");
        tunnel.close().await;
        let ended = ended.wait_for(|ended| ended.len() == 5).await;
        let ended = ended.expect("the service lives").clone();
        assert!(ended.iter().all(Result::is_err), "no clean end: {ended:?}");
    })
    .await;
}

/// A body that is always pending and counts its polls.
#[derive(Clone, Default)]
struct Silent(Arc<AtomicUsize>);

impl http_body::Body for Silent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Piece>> {
        let asked = self.0.fetch_add(1, Ordering::Relaxed);
        assert!(asked < 1000, "polled in a busy loop");
        Poll::Pending
    }
}

/// Paused time advances only when all tasks are idle. The five seconds of grace therefore take no
/// real time, and would never pass if a task were spinning. `ended` resolves at once.
#[tokio::test(start_paused = true)]
async fn closing_a_tunnel_whose_peer_does_not_answer_takes_the_grace_and_no_work() {
    let silent = Silent::default();
    let body = silent.clone();
    let service = service_fn(move |request: http::Request<Body>| {
        // Keeps the received data without reading it.
        std::mem::forget(request);
        let response = http::Response::new(Body::new(body.clone()));
        std::future::ready(Ok::<_, Status>(response))
    });
    let tunnel = ForwardTunnel::new(service).open().await;
    let tunnel = tunnel.expect("the service accepts a tunnel");
    let before = silent.0.load(Ordering::Relaxed);
    let mut closing = Box::pin(tunnel.close());
    assert!(poll_immediate(closing.as_mut()).await.is_none());
    let ended = poll_immediate(pin!(tunnel.ended())).await;
    assert_eq!(ended, Some(EndReason::Closed));
    let closed = tokio::time::timeout(Duration::from_secs(6), closing).await;
    closed.expect("five seconds at most");
    let asked = silent.0.load(Ordering::Relaxed) - before;
    assert!(
        asked < 20,
        "polled {asked} times for an end that never came"
    );
    drop(tunnel);
    eventually(|| {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
            == 0
    })
    .await;
}

/// A tunnel uses the runtime's clock, so users' tests can pause it.
#[tokio::test(start_paused = true)]
async fn deadlines_and_timeouts_go_by_the_runtime_s_clock() {
    let probe = Probe::default();
    let (handler, tunnel) = in_process(scripted(&probe)).await;
    for kind in Kind::ALL {
        let mut request = Script::named("hours").receive_all().pend().request(one());
        request.set_timeout(Duration::from_secs(7200));
        let outcome = call(&client(&tunnel), kind, request).await;
        outcome.expect_failure(Code::DeadlineExceeded);
    }
    probe.until("hours", |record| record.dropped == 4).await;

    let client = client(&tunnel);
    let script = Script::named("drained").receive_all().pend();
    let sent = one_request();
    let mut call = Box::pin(run(&client, Kind::Unary, &script, sent));
    assert!(poll_immediate(call.as_mut()).await.is_none());
    probe.started("drained").await;
    handler.drain(Duration::from_secs(7200)).await;
    call.await.expect_failure(Code::Unavailable);

    let (service, mut openings) = raw_service();
    let opening = tokio::spawn(ForwardTunnel::new(service).open());
    let _silent = openings.recv().await.expect("an opening").accept(true);
    let error = opening.await.expect("no panic").expect_err("no settings");
    let TunnelError::Ended(EndReason::Error(ConnectionError::SettingsTimeout)) = error else {
        panic!("expected a settings timeout, not {error:?}");
    };
}

/// A body that is always ready with empty data.
struct Nothing(Arc<AtomicUsize>);

impl http_body::Body for Nothing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Piece>> {
        let asked = self.0.fetch_add(1, Ordering::Relaxed);
        assert!(asked < 20_000_000, "polled forever without a yield");
        Poll::Ready(Some(Ok(Frame::data(Bytes::new()))))
    }
}

/// On one thread a task that does not yield blocks all others.
#[tokio::test]
async fn bodies_of_only_empty_frames_block_no_other_task() {
    guarded(async {
        let asked = Arc::new(AtomicUsize::new(0));
        let of_response = asked.clone();
        let service = answers(move |_| {
            let nothing = Nothing(of_response.clone());
            async { response(Body::new(nothing)) }
        });
        let probe = Probe::default();
        let handler = TunnelServiceHandler::builder()
            .add_service(service)
            .add_service(scripted(&probe))
            .build();
        let tunnel = ForwardTunnel::new(handler.service()).open().await;
        let tunnel = tunnel.expect("the service accepts a tunnel");
        let endless = tokio::spawn({
            let mut tunnel = tunnel.clone();
            let request = raw_request(Body::new(Nothing(asked)));
            async move {
                let response = tunnel.call(request).await;
                read_all(response.expect("headers come").into_body())
                    .await
                    .1
            }
        });
        assert_usable(&client(&tunnel)).await;
        assert!(!endless.is_finished());
        endless.abort();
        eventually(|| tunnel.kept_calls() == 0 && handler.kept_calls() == 0).await;
    })
    .await;
}

/// The task that polled last is woken, not the first.
#[tokio::test(flavor = "multi_thread")]
async fn calls_and_streams_may_move_between_tasks_while_they_wait() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = far.tunnel().await;
        let client = client(&tunnel);
        let script = Script::named("moved").receive_all().wait("headers");
        let script = script.send_headers().wait("message").send(1, 100, 1);
        let request = script.request(one());
        let mut opening = Box::pin({
            let client = client.clone();
            async move { open(&client, Kind::Bidi, request).await }
        });
        assert!(poll_immediate(&mut opening).await.is_none());
        let opening = tokio::spawn(opening);
        far.probe.started("moved").await;
        far.probe.open("headers");
        let ongoing = opening.await.expect("no panic").expect("headers come");
        let mut outcome = Box::pin(ongoing.outcome());
        assert!(poll_immediate(&mut outcome).await.is_none());
        let outcome = tokio::spawn(outcome);
        far.probe.open("message");
        let outcome = outcome.await.expect("no panic");
        assert_sent(outcome.expect_success(), 1, 100, 1);
    })
    .await;
}

/// The two directions of a call are independent. A response is read although the request never
/// ends. A request continues although the response is not read.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_on_while_the_response_is_not_polled() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = far.tunnel().await;
        let (send, requests) = mpsc::channel(1);
        let (feed, _watch) = Feed::new(ReceiverStream::new(requests));
        let script = Script::named("goes on")
            .send_headers()
            .receive_all()
            .summarize();
        let ongoing = open(&client(&tunnel), Kind::Bidi, script.request(feed)).await;
        let ongoing = ongoing.expect("headers come");
        for seed in 0..50 {
            send.send(request(seed, 10_000)).await.expect("taken");
        }
        drop(send);
        far.probe.received("goes on", 50).await;
        let outcome = ongoing.outcome().await;
        let received = outcome.expect_success()[0].received.expect("a summary");
        assert_eq!(received.messages, 50);
    })
    .await;
}

/// With every buffer full at the smallest settings, the two ends must not deadlock.
#[tokio::test(flavor = "multi_thread")]
async fn the_smallest_windows_and_buffers_carry_everything() {
    guarded(async {
        let config = Config::builder()
            .initial_window(1)
            .max_window(1)
            .chunk_size(1)
            .send_buffer(1)
            .build()
            .expect("valid");
        let service = answers(|request| async {
            let echoed = read_all(request.into_body()).await.0;
            response(Pieces::all(vec![data(echoed), status("0")]))
        });
        let handler = TunnelServiceHandler::builder()
            .add_service(service)
            .config(config.clone())
            .build();
        let opening = ForwardTunnel::new(handler.service()).config(config);
        let tunnel = opening.open().await.expect("the service accepts a tunnel");
        let sent: Vec<u8> = [0, 1, 2, 300]
            .into_iter()
            .flat_map(|n| message(&vec![7; n]))
            .collect();
        let (bytes, end) = raw_outcome(&tunnel, Pieces::all(vec![data(sent.clone())])).await;
        assert_eq!((bytes, end.code()), (sent, Code::Ok));
    })
    .await;
}
