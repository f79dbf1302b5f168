//! One phase of the example, with the count of its calls.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::books::Books;
use crate::dispatch::{Dispatcher, To};
use crate::fleet::Fleet;
use crate::progress::Progress;
use crate::report::{Outcome, Tally};

/// How long a device works for one of many calls.
const SHORT: Duration = Duration::from_millis(10);

/// How long calls may take to reach their devices.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whose calls may be lost in a phase, because of a power cut.
#[derive(Clone, Debug)]
pub(crate) enum Risk {
    Nobodys,
    Theirs(Vec<String>),
    Everybodys,
}

impl Risk {
    fn excuses(&self, to: &To) -> bool {
        match self {
            Self::Nobodys => false,
            Self::Theirs(keys) => matches!(to, To::Key(key) if keys.contains(key)),
            Self::Everybodys => true,
        }
    }
}

/// A running phase. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Phase {
    dispatcher: Dispatcher,
    books: Arc<Books>,
    risk: Risk,
    tally: Arc<Mutex<Tally>>,
    progress: Progress,
}

impl Phase {
    /// Begins a phase of calls to a fleet.
    pub(crate) fn begin(name: &'static str, fleet: &Fleet, risk: Risk) -> Self {
        Self {
            dispatcher: fleet.dispatcher().clone(),
            books: fleet.books().clone(),
            risk,
            tally: Arc::new(Mutex::new(Tally::new(name))),
            progress: Progress::of_calls(),
        }
    }

    pub(crate) fn say(&self, line: &str) {
        self.progress.say(line);
    }

    /// Makes a call and counts it.
    pub(crate) async fn call(&self, to: &To, work: Duration) -> Outcome {
        let number = self.dispatcher.next_number();
        self.call_numbered(number, to, work).await
    }

    async fn call_numbered(&self, number: u64, to: &To, work: Duration) -> Outcome {
        let outcome = self.dispatcher.call(number, to, work).await;
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.count(&outcome, self.risk.excuses(to));
        drop(tally);
        self.progress.step();
        outcome
    }

    /// Calls each of these devices, one call after another, until `happening` is over
    /// and the minimum is reached.
    pub(crate) async fn during<T>(
        &self,
        keys: &[String],
        at_least: usize,
        happening: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let over = CancellationToken::new();
        let mut callers = JoinSet::new();
        for key in keys {
            let to = To::Key(key.clone());
            let caller = self
                .clone()
                .call_again_and_again(to, at_least, over.clone());
            callers.spawn(caller);
        }
        let happened = happening.await;
        over.cancel();
        match &happened {
            Ok(_) => drop(callers.join_all().await),
            // Some calls may wait for a device that does not come back.
            Err(_) => callers.shutdown().await,
        }
        happened
    }

    async fn call_again_and_again(self, to: To, at_least: usize, over: CancellationToken) {
        let mut made = 0;
        while made < at_least || !over.is_cancelled() {
            self.call(&to, SHORT).await;
            made += 1;
        }
    }

    /// Makes a call to each of these devices, and returns when all calls have reached
    /// them.
    pub(crate) async fn put_to_work(&self, keys: &[String], work: Duration) -> Result<AtWork> {
        let mut calls = JoinSet::new();
        let mut numbers = Vec::new();
        for key in keys {
            let number = self.dispatcher.next_number();
            numbers.push(number);
            let (phase, to) = (self.clone(), To::Key(key.clone()));
            calls.spawn(async move { phase.call_numbered(number, &to, work).await });
        }
        timeout(PATIENCE, self.books.reached(&numbers))
            .await
            .context("not all calls have reached their devices")?;
        Ok(AtWork { calls })
    }

    /// The results of the phase. Logs a line if all are good.
    pub(crate) fn end(&self, good: &str) -> Tally {
        self.progress.end();
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = tally.clone();
        if tally.verdict().is_ok() {
            self.say(&format!("✓ {good}"));
        }
        tally
    }
}

/// Calls that are in flight.
#[derive(Debug)]
pub(crate) struct AtWork {
    calls: JoinSet<Outcome>,
}

impl AtWork {
    /// Their results.
    pub(crate) async fn outcomes(self) -> Vec<Outcome> {
        self.calls.join_all().await
    }
}
