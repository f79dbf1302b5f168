//! Calls that the tunnel's task polls first. A call that finishes in that poll gets no task. A call
//! that is still pending moves to its own task.

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, join_all};
use futures::stream::{self, StreamExt};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Code, Status};
use tunnel_client::{ForwardTunnel, LinksHandle, ReverseTunnelServer, TunnelChannel};
use tunnel_conformance::TcpServer;
use tunnel_conformance::payload::pattern;
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

use crate::support::body::{Pieces, data, message, status};
use crate::support::raw_service::{RawService, answers, outcome_of, raw_request_for, response};
use crate::support::{eventually, guarded};

/// Longer than any test lasts.
const NEVER: Duration = Duration::from_secs(12 * 60 * 60);

/// The tunnel's task polls a new call only if at most this many calls are open, including the new
/// one.
const MOST: usize = 128;

/// A response of 8 MiB, many times the window.
const FLOOD: [usize; 2] = [128, 64 << 10];

/// State shared by the handlers and the test.
#[derive(Clone)]
struct Shared {
    begun: mpsc::UnboundedSender<Vec<u8>>,
    dropped: mpsc::UnboundedSender<()>,
    go_on: Arc<Semaphore>,
}

/// Notifies the test when it is dropped.
struct Tells(mpsc::UnboundedSender<()>);

impl Drop for Tells {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// The id of the current task.
fn task() -> Vec<u8> {
    tokio::task::id().to_string().into_bytes()
}

fn answer(payload: &[u8]) -> http::Response<Body> {
    response(Pieces::all(vec![data(message(payload)), status("0")]))
}

/// Wakes its task during its first poll, and is pending once.
async fn wakes_while_it_is_polled() {
    let mut polled = false;
    poll_fn(|cx| {
        cx.waker().wake_by_ref();
        match std::mem::replace(&mut polled, true) {
            false => Poll::Pending,
            true => Poll::Ready(()),
        }
    })
    .await;
}

/// Its event arrives during its first poll, and it is pending once.
async fn completes_while_it_is_polled() {
    let (say, said) = oneshot::channel();
    let mut say = Some(say);
    let mut said = pin!(said);
    poll_fn(|cx| {
        let poll = said.as_mut().poll(cx);
        if let Some(say) = say.take() {
            say.send(()).expect("somebody waits");
        }
        poll
    })
    .await
    .expect("it was said");
}

/// The service of the test. The method name selects what the handler does.
fn service(shared: Shared) -> RawService {
    answers(move |request| handle(shared.clone(), request))
}

async fn handle(shared: Shared, request: http::Request<Body>) -> http::Response<Body> {
    let _tells = Tells(shared.dropped.clone());
    match request.uri().path() {
        "/raw.Service/Now" => answer(&task()),
        "/raw.Service/Wait" => {
            let _ = shared.begun.send(message(&task()));
            let go_on = shared.go_on.acquire().await;
            go_on.expect("never closed").forget();
            answer(&task())
        }
        "/raw.Service/Wakes" => {
            wakes_while_it_is_polled().await;
            answer(&task())
        }
        "/raw.Service/Completes" => {
            completes_while_it_is_polled().await;
            answer(&task())
        }
        "/raw.Service/WakesInItsBody" => {
            let bytes = message(&task());
            let pieces = stream::once(wakes_while_it_is_polled());
            let pieces =
                pieces.flat_map(move |()| stream::iter([data(bytes.clone()), status("0")]));
            response(Body::new(Pieces::new(pieces)))
        }
        "/raw.Service/Panic" => panic!("injected panic in the first poll"),
        "/raw.Service/PanicInItsBody" => {
            let panics = stream::once(async { panic!("injected panic in a body") });
            response(Body::new(Pieces::new(panics)))
        }
        "/raw.Service/Flood" => {
            let [count, size] = FLOOD;
            let pieces = (0..count).map(move |seed| data(message(&pattern(seed as u64, size))));
            let pieces = pieces.chain([status("0")]);
            response(Body::new(Pieces::new(stream::iter(pieces))))
        }
        other => panic!("no such method: {other}"),
    }
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Forward,
    Reverse,
}

impl Way {
    const BOTH: [Self; 2] = [Self::Forward, Self::Reverse];
}

/// The serving end.
enum Far {
    Gateway(TunnelServiceHandler),
    Device {
        handle: LinksHandle,
        /// The gateway that the device dialled.
        _gateway: TcpServer,
    },
}

/// A tunnel and the server behind it.
struct Stage {
    tunnel: TunnelChannel,
    far: Far,
    /// The id of the task that first polled each waiting call.
    begun: mpsc::UnboundedReceiver<Vec<u8>>,
    dropped: mpsc::UnboundedReceiver<()>,
    go_on: Arc<Semaphore>,
}

impl Stage {
    async fn open(way: Way, inline: bool) -> Self {
        let (begun_tx, begun) = mpsc::unbounded_channel();
        let (dropped_tx, dropped) = mpsc::unbounded_channel();
        let go_on = Arc::new(Semaphore::new(0));
        let service = service(Shared {
            begun: begun_tx,
            dropped: dropped_tx,
            go_on: go_on.clone(),
        });
        let (tunnel, far) = match way {
            Way::Forward => forward(service, inline).await,
            Way::Reverse => reverse(service, inline).await,
        };
        Self {
            tunnel,
            far,
            begun,
            dropped,
            go_on,
        }
    }

    /// Calls a method, and returns the single response message and the status.
    async fn call(&self, method: &str) -> (Vec<u8>, Status) {
        outcome_of(&self.tunnel, raw_request_for(method, Body::empty())).await
    }

    /// Calls a method that returns its task id.
    async fn task_of(&self, method: &str) -> Vec<u8> {
        told(self.call(method).await)
    }

    /// The id of the tunnel's task.
    async fn own(&self) -> Vec<u8> {
        let own = self.task_of("Now").await;
        assert_eq!(own, self.task_of("Now").await, "always the same one");
        own
    }

    /// Starts waiting calls. Returns the calls and the ids of the tasks that first polled them.
    async fn wait(&mut self, count: usize) -> (Vec<JoinHandle<Vec<u8>>>, Vec<Vec<u8>>) {
        let calls = (0..count).map(|_| {
            let tunnel = self.tunnel.clone();
            let request = raw_request_for("Wait", Body::empty());
            tokio::spawn(async move { told(outcome_of(&tunnel, request).await) })
        });
        let calls = calls.collect();
        let mut begun = Vec::new();
        for _ in 0..count {
            begun.push(self.begun.recv().await.expect("the service lives"));
        }
        (calls, begun)
    }

    /// Waits until the serving end has this many open calls.
    async fn open_calls(&self, count: usize) {
        let streams = || match &self.far {
            Far::Gateway(handler) => handler.stats()[0].1.streams,
            Far::Device { handle, .. } => handle.stats()[0].1.streams,
        };
        eventually(|| streams() == count).await;
    }

    fn drain(&self) -> BoxFuture<'static, ()> {
        match &self.far {
            Far::Gateway(handler) => {
                let handler = handler.clone();
                async move { handler.drain(NEVER).await }.boxed()
            }
            Far::Device { handle, .. } => {
                let handle = handle.clone();
                async move { handle.drain(NEVER).await }.boxed()
            }
        }
    }
}

/// The message of a successful call.
fn told((bytes, status): (Vec<u8>, Status)) -> Vec<u8> {
    assert_eq!(status.code(), Code::Ok, "{status:?}");
    bytes
}

async fn forward(service: RawService, inline: bool) -> (TunnelChannel, Far) {
    let handler = TunnelServiceHandler::builder()
        .add_service(service)
        .poll_handlers_inline(inline)
        .build();
    let tunnel = ForwardTunnel::new(handler.service()).open().await;
    let tunnel = tunnel.expect("the service accepts a tunnel");
    (tunnel, Far::Gateway(handler))
}

async fn reverse(service: RawService, inline: bool) -> (TunnelChannel, Far) {
    let gateway = TunnelServiceHandler::builder().build();
    let routes = Routes::new(gateway.service());
    let server = TcpServer::start(server_for_tunnels(Server::builder()), routes).await;
    let device = ReverseTunnelServer::builder(server.endpoint())
        .add_service(service)
        .poll_handlers_inline(inline)
        .build();
    let handle = device.handle();
    tokio::spawn(device.run());
    eventually(|| !gateway.as_channel().tunnels().is_empty()).await;
    let tunnel = gateway.as_channel().tunnels().remove(0);
    let tunnel = tunnel.channel().expect("a reverse tunnel");
    let far = Far::Device {
        handle,
        _gateway: server,
    };
    (tunnel, far)
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_answer_at_once_are_served_in_one_task_with_the_option() {
    guarded(async {
        for way in Way::BOTH {
            let stage = Stage::open(way, true).await;
            let (first, second) = (stage.task_of("Now").await, stage.task_of("Now").await);
            assert_eq!(first, second, "{way:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_waits_is_moved_to_a_task_of_its_own_and_others_are_answered_meanwhile() {
    guarded(async {
        for way in Way::BOTH {
            let mut stage = Stage::open(way, true).await;
            let own = stage.own().await;
            let (calls, begun) = stage.wait(2).await;
            assert_eq!(begun, [own.clone(), own.clone()]);
            for _ in 0..10 {
                assert_eq!(stage.task_of("Now").await, own);
            }
            assert!(calls.iter().all(|call| !call.is_finished()));
            stage.go_on.add_permits(2);
            let mut tasks = HashSet::from([own]);
            for call in calls {
                tasks.insert(call.await.expect("no panic"));
            }
            assert_eq!(tasks.len(), 3, "{way:?}");
        }
    })
    .await;
}

/// A wake-up during the first poll finds no task yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_wake_before_a_call_has_its_task_is_not_lost() {
    guarded(async {
        for way in Way::BOTH {
            let stage = Stage::open(way, true).await;
            let own = stage.own().await;
            for _ in 0..10 {
                assert_ne!(stage.task_of("Wakes").await, own);
                assert_ne!(stage.task_of("Completes").await, own);
                // The call returns the id of the task that created the body.
                assert_eq!(stage.task_of("WakesInItsBody").await, own);
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_at_the_first_poll_is_internal_and_ends_nothing_else() {
    guarded(async {
        for way in Way::BOTH {
            let mut stage = Stage::open(way, true).await;
            let own = stage.own().await;
            let (calls, _) = stage.wait(1).await;
            for method in ["Panic", "PanicInItsBody", "Panic"] {
                let (_, status) = stage.call(method).await;
                assert_eq!(status.code(), Code::Internal, "{status:?}");
                assert!(status.message().contains("panicked"), "{status:?}");
            }
            assert_eq!(stage.task_of("Now").await, own);
            stage.go_on.add_permits(1);
            for call in calls {
                call.await.expect("it goes on");
            }
            stage.open_calls(0).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_drops_a_handler_that_waits() {
    guarded(async {
        for way in Way::BOTH {
            let mut stage = Stage::open(way, true).await;
            let own = stage.own().await;
            let (mut calls, _) = stage.wait(2).await;
            while stage.dropped.try_recv().is_ok() {}
            calls.remove(0).abort();
            stage.dropped.recv().await.expect("the service lives");
            stage.open_calls(1).await;
            stage.go_on.add_permits(1);
            let other = calls.remove(0).await.expect("it goes on");
            assert_ne!(other, own);
        }
    })
    .await;
}

/// Paused time advances only when all tasks wait, so the handler is waiting at the deadline.
#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_call_and_drops_its_handler_that_waits() {
    guarded(async {
        let mut stage = Stage::open(Way::Forward, true).await;
        let own = stage.own().await;
        while stage.dropped.try_recv().is_ok() {}
        let mut request = raw_request_for("Wait", Body::empty());
        let timeout = "1S".parse().expect("legal");
        request.headers_mut().insert("grpc-timeout", timeout);
        let (_, status) = outcome_of(&stage.tunnel, request).await;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        assert_eq!(stage.begun.recv().await, Some(own));
        stage.dropped.recv().await.expect("the service lives");
        stage.open_calls(0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_larger_than_its_window_is_delivered_whole() {
    guarded(async {
        let [count, size] = FLOOD;
        let whole = (0..count).flat_map(|seed| message(&pattern(seed as u64, size)));
        let whole: Vec<u8> = whole.collect();
        for way in Way::BOTH {
            let stage = Stage::open(way, true).await;
            for _ in 0..2 {
                let (bytes, status) = stage.call("Flood").await;
                assert_eq!(status.code(), Code::Ok, "{status:?}");
                assert!(bytes == whole, "{way:?}: {} bytes", bytes.len());
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_128_calls_open_the_next_one_is_served_in_a_task_of_its_own() {
    guarded(async {
        for way in Way::BOTH {
            let mut stage = Stage::open(way, true).await;
            let own = stage.own().await;
            let (mut calls, _) = stage.wait(MOST - 1).await;
            assert_eq!(stage.task_of("Now").await, own);
            stage.open_calls(MOST - 1).await;
            let (last, begun) = stage.wait(1).await;
            assert_eq!(begun, std::slice::from_ref(&own));
            calls.extend(last);
            let mut tasks = HashSet::from([own.clone()]);
            for _ in 0..3 {
                assert!(tasks.insert(stage.task_of("Now").await));
                stage.open_calls(MOST).await;
            }
            stage.go_on.add_permits(MOST);
            for call in calls {
                assert!(tasks.insert(call.await.expect("no panic")));
            }
            stage.open_calls(0).await;
            assert_eq!(stage.task_of("Now").await, own);
        }
    })
    .await;
}

/// On one thread all calls arrive in the same DATA frame.
async fn three_hundred_calls() {
    guarded(async {
        for way in Way::BOTH {
            let mut stage = Stage::open(way, true).await;
            let now = join_all((0..300).map(|_| stage.task_of("Now"))).await;
            assert_eq!(now.len(), 300);
            let (calls, _) = stage.wait(300).await;
            stage.go_on.add_permits(300);
            let tasks = join_all(calls).await.into_iter();
            let tasks: HashSet<_> = tasks.map(|task| task.expect("no panic")).collect();
            assert_eq!(tasks.len(), 300, "{way:?}");
            stage.open_calls(0).await;
        }
    })
    .await;
}

#[tokio::test]
async fn three_hundred_calls_at_once_are_all_answered_by_one_thread() {
    three_hundred_calls().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_calls_at_once_are_all_answered_by_several_threads() {
    three_hundred_calls().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_calls_that_wait_and_refuses_others() {
    guarded(async {
        for way in Way::BOTH {
            let mut stage = Stage::open(way, true).await;
            let (calls, _) = stage.wait(3).await;
            let drained = tokio::spawn(stage.drain());
            stage.tunnel.draining().await;
            let (_, status) = stage.call("Now").await;
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            assert!(!drained.is_finished());
            stage.go_on.add_permits(3);
            for call in calls {
                call.await.expect("it goes on");
            }
            drained.await.expect("no panic");
            stage.tunnel.ended().await;
        }
    })
    .await;
}
