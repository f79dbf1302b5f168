//! A watch that never ends: a snapshot, then changes, over any number of connections.
//!
//! `seen` is the last revision of which everything was reported. It moves by whole revisions alone, so a watch that
//! goes on after `seen` misses nothing and repeats nothing.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::time::{Instant, sleep};

use super::client::Client;
use super::failure::Failure;
use super::live::Live;
use super::range::{self, KeyRange};
use crate::directory::Update;

/// The first pause between attempts. Each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause. A watch that has lived longer than this begins again with the first.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Watches a prefix. Nothing happens until the stream is polled.
pub(super) fn watch(client: Arc<Client>, prefix: &str) -> BoxStream<'static, Update> {
    let watcher = Watcher {
        client,
        range: KeyRange::of_prefix(prefix),
        seen: None,
        state: State::Behind,
        is_lost: false,
        pause: None,
    };
    let next = |mut watcher: Watcher| async move { Some((watcher.next().await, watcher)) };
    stream::unfold(watcher, next).boxed()
}

struct Watcher {
    client: Arc<Client>,
    range: KeyRange,
    /// `None`: a snapshot is due.
    seen: Option<u64>,
    state: State,
    /// Whether the loss of the store was reported last.
    is_lost: bool,
    /// The pause before the next attempt, without its jitter.
    pause: Option<Duration>,
}

enum State {
    /// There is no watch.
    Behind,
    /// There is none, and the snapshot was read just now.
    AtSnapshot,
    Live(Box<Live>, Instant),
}

impl Watcher {
    async fn next(&mut self) -> Update {
        loop {
            match self.step().await {
                Ok(Some(update)) => {
                    self.is_lost = false;
                    return update;
                }
                Ok(None) => {}
                Err(Failure::Compacted) => {
                    self.seen = None;
                    self.state = State::Behind;
                }
                Err(Failure::Failed(error)) => {
                    self.lengthen_pause();
                    self.state = State::Behind;
                    if !self.is_lost {
                        self.is_lost = true;
                        return Update::Lost(error);
                    }
                }
            }
        }
    }

    /// One step towards the next update, and the update if that is it.
    async fn step(&mut self) -> Result<Option<Update>, Failure> {
        if let State::Live(live, _) = &mut self.state {
            let (changes, revision) = live.next().await?;
            self.seen = Some(revision);
            return Ok(Some(Update::Changes { changes, revision }));
        }
        if let Some(pause) = self.pause {
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
        let Some(seen) = self.seen else {
            let (entries, revision) = range::read_all(&self.client, &self.range).await?;
            self.seen = Some(revision);
            self.state = State::AtSnapshot;
            return Ok(Some(Update::Snapshot { entries, revision }));
        };
        let resumes = !matches!(self.state, State::AtSnapshot);
        // A store with a past revision was restored from a backup: what was seen did not happen there.
        if resumes && range::newest_revision(&self.client, &self.range).await? < seen {
            self.seen = None;
            return Ok(None);
        }
        let live = Live::open(&self.client, &self.range, seen).await?;
        self.state = State::Live(Box::new(live), Instant::now());
        Ok(resumes.then_some(Update::Changes {
            changes: Vec::new(),
            revision: seen,
        }))
    }

    fn lengthen_pause(&mut self) {
        let was_stable = match &self.state {
            State::Live(_, since) => since.elapsed() > LONGEST_PAUSE,
            State::Behind | State::AtSnapshot => false,
        };
        self.pause = Some(match self.pause {
            Some(pause) if !was_stable => LONGEST_PAUSE.min(pause * 2),
            _ => FIRST_PAUSE,
        });
    }
}
