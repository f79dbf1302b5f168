//! Fairness of the tunnel's task while it polls calls: answers are sent together, and other tasks
//! run in between.

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use http_body::Body as _;
use tokio::sync::Notify;
use tokio::task::Id;
use tonic::body::Body;
use tunnel_server::TunnelServiceHandler;

use crate::support::body::{Pieces, status};
use crate::support::peer::RawCaller;
use crate::support::raw_service::{RawService, answers, response};
use crate::support::{eventually, guarded};

/// Counts what the handlers have done.
#[derive(Default)]
struct Count {
    handled: AtomicUsize,
    tasks: Mutex<HashSet<Id>>,
    begun: Notify,
}

impl Count {
    fn handled(&self) -> usize {
        self.handled.load(Ordering::SeqCst)
    }
}

/// A service that answers at once and counts its calls.
fn counts(count: &Arc<Count>) -> RawService {
    let count = count.clone();
    answers(move |_| {
        let count = count.clone();
        async move {
            count.handled.fetch_add(1, Ordering::SeqCst);
            let mut tasks = count.tasks.lock().expect("not poisoned");
            tasks.insert(tokio::task::id());
            count.begun.notify_one();
            response(Pieces::all(vec![status("0")]))
        }
    })
}

async fn caller(count: &Arc<Count>) -> RawCaller {
    let handler = TunnelServiceHandler::builder()
        .add_service(counts(count))
        .poll_handlers_inline(true)
        .build();
    RawCaller::in_process(handler.service()).await
}

/// A transport's writer. Each wake-up records the number of handled calls.
#[derive(Default)]
struct Writer {
    count: Arc<Count>,
    woken: Mutex<Vec<usize>>,
}

impl Wake for Writer {
    fn wake(self: Arc<Self>) {
        let handled = self.count.handled();
        self.woken.lock().expect("not poisoned").push(handled);
    }
}

/// Takes all frames that are ready.
fn take_all(hearing: &mut Body, waker: &Waker) {
    while Pin::new(&mut *hearing)
        .poll_frame(&mut Context::from_waker(waker))
        .is_ready()
    {}
}

#[tokio::test]
async fn the_writer_is_woken_once_for_the_answers_of_calls_that_came_together() {
    guarded(async {
        let count = Arc::new(Count::default());
        let mut caller = caller(&count).await;
        let writer = Arc::new(Writer {
            count: count.clone(),
            woken: Mutex::default(),
        });
        let waker = Waker::from(writer.clone());
        let mut hearing = caller.take_hearing();
        take_all(&mut hearing, &waker);
        let woken = || std::mem::take(&mut *writer.woken.lock().expect("not poisoned"));
        // The settings may have woken the writer.
        tokio::task::yield_now().await;
        take_all(&mut hearing, &waker);
        woken();
        caller.calls_at_once(1..=50, "/raw.Service/Any");
        eventually(|| count.handled() == 50).await;
        assert_eq!(woken(), [50]);
    })
    .await;
}

/// The task that sends the answers must run too, or the calls would count as open.
#[tokio::test]
async fn other_tasks_get_a_turn_between_many_calls_that_answer_at_once() {
    const CALLS: usize = 300;
    guarded(async {
        let count = Arc::new(Count::default());
        let mut caller = caller(&count).await;
        let mut hearing = caller.take_hearing();
        tokio::spawn(async move {
            while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut hearing).poll_frame(cx)).await {}
        });
        let other = tokio::spawn({
            let count = count.clone();
            async move {
                count.begun.notified().await;
                count.handled()
            }
        });
        caller.calls_at_once(1..=CALLS as i64, "/raw.Service/Any");
        let handled = other.await.expect("no panic");
        assert!((1..=128).contains(&handled), "{handled}");
        eventually(|| count.handled() == CALLS).await;
        assert_eq!(count.tasks.lock().expect("not poisoned").len(), 1);
    })
    .await;
}
