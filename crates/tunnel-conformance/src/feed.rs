//! Request streams whose use a test can observe.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;

use crate::payload::request;
use crate::proto::Request;

/// The state of a [`Feed`].
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    taken: u64,
    dropped: bool,
}

/// A request stream that reports its state to a [`FeedWatch`].
#[allow(missing_debug_implementations)]
pub struct Feed {
    messages: BoxStream<'static, Request>,
    fate: watch::Sender<Fate>,
}

/// Observes a [`Feed`] that was passed to a call.
#[derive(Clone, Debug)]
pub struct FeedWatch(watch::Receiver<Fate>);

impl Feed {
    /// A feed with the messages of a stream.
    pub fn new(messages: impl Stream<Item = Request> + Send + 'static) -> (Self, FeedWatch) {
        let (fate, watch) = watch::channel(Fate::default());
        let messages = messages.boxed();
        (Self { messages, fate }, FeedWatch(watch))
    }

    /// An endless feed of messages with the patterns of `seed`, `seed + 1` and so on.
    ///
    /// The feed sometimes yields to the runtime, so that a failing test can end.
    pub fn endless(seed: u64, size: usize) -> (Self, FeedWatch) {
        Self::new(stream::iter(seed..).then(move |seed| async move {
            tokio::task::consume_budget().await;
            request(seed, size)
        }))
    }

    /// A feed of these messages that then stays open.
    pub fn open(messages: Vec<Request>) -> (Self, FeedWatch) {
        Self::new(stream::iter(messages).chain(stream::pending()))
    }
}

impl Stream for Feed {
    type Item = Request;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Request>> {
        let next = self.messages.poll_next_unpin(cx);
        if matches!(next, Poll::Ready(Some(_))) {
            self.fate.send_modify(|fate| fate.taken += 1);
        }
        next
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.fate.send_modify(|fate| fate.dropped = true);
    }
}

impl FeedWatch {
    /// The number of messages taken so far.
    pub fn taken(&self) -> u64 {
        self.0.borrow().taken
    }

    /// Waits until `count` messages were taken.
    pub async fn until_taken(&mut self, count: u64) {
        let _ = self.0.wait_for(|fate| fate.taken >= count).await;
        assert!(self.taken() >= count, "the feed was dropped before that");
    }

    /// Waits until the feed was dropped.
    pub async fn dropped(&mut self) {
        let _ = self.0.wait_for(|fate| fate.dropped).await;
    }
}
