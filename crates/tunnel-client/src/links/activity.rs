//! Measures how long the far end has been silent.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body, Frame};
use tokio::time::Instant;

/// When something was last received from the far end, to the millisecond.
#[derive(Clone, Debug)]
pub(crate) struct Activity {
    since: Instant,
    last: Arc<AtomicU64>,
}

impl Activity {
    /// Something was received just now: the response headers.
    pub(crate) fn now() -> Self {
        Self {
            since: Instant::now(),
            last: Arc::default(),
        }
    }

    /// How long nothing was received.
    pub(crate) fn silence(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.since.elapsed().saturating_sub(last)
    }

    /// Wraps a body so that each received piece is noted.
    pub(crate) fn listen<B>(&self, body: B) -> Watched<B> {
        let activity = self.clone();
        Watched { body, activity }
    }

    fn note(&self) {
        let elapsed = u64::try_from(self.since.elapsed().as_millis());
        self.last
            .store(elapsed.unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// A body that notes its pieces.
#[derive(Debug)]
pub(crate) struct Watched<B> {
    body: B,
    activity: Activity,
}

impl<B: Body + Unpin> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        let piece = ready!(Pin::new(&mut this.body).poll_frame(cx));
        // The end itself is not noted: the silence before it is what matters.
        if matches!(piece, Some(Ok(_))) {
            this.activity.note();
        }
        Poll::Ready(piece)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::collections::VecDeque;

    struct Pieces(VecDeque<Result<Frame<Bytes>, &'static str>>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            Poll::Ready(self.0.pop_front())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_lasts_from_the_last_piece_and_not_from_the_end() {
        let activity = Activity::now();
        let piece = Ok(Frame::data(Bytes::from_static(b"x")));
        let mut body = activity.listen(Pieces([piece, Err("broken")].into()));
        let mut next = async || {
            tokio::time::advance(Duration::from_secs(3)).await;
            std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
        };
        assert_eq!(activity.silence(), Duration::ZERO);
        assert!(next().await.expect("a piece").is_ok());
        assert_eq!(activity.silence(), Duration::ZERO);
        assert!(next().await.expect("an error").is_err());
        assert_eq!(activity.silence(), Duration::from_secs(3));
        assert!(next().await.is_none());
        assert_eq!(activity.silence(), Duration::from_secs(6));
    }
}
