//! The last five minutes of the gateway, second by second: rates, calls in flight and latencies.
//!
//! A call that ends takes one lock for some nanoseconds. The locks are spread over threads, so that they do not wait for
//! each other.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use tokio::time::MissedTickBehavior;

use super::presence::Presence;
use super::totals::Totals;

/// How many samples are kept.
pub(crate) const SAMPLES: usize = 300;

/// The time between samples.
const INTERVAL: Duration = Duration::from_secs(1);

/// How many threads end calls without waiting for each other.
const SHARDS: usize = 8;

/// The longest duration that latencies tell apart, in microseconds: an hour.
const MAX_LATENCY: u64 = 3_600_000_000;

/// One second of the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    /// Calls that began, for each second.
    pub(crate) calls: f64,
    /// Message bytes sent and received, for each second.
    pub(crate) bytes: f64,
    /// Calls in flight at its end.
    pub(crate) in_flight: f64,
    /// The durations of the calls that ended in it. `None`: none ended.
    pub(crate) latency: Option<Latency>,
}

/// How long calls took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Latency {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// The last five minutes.
#[derive(Debug)]
pub(crate) struct History {
    /// The durations of the calls that have ended since the last sample, in microseconds.
    ended: [Mutex<Histogram<u32>>; SHARDS],
    /// Oldest first.
    samples: Mutex<VecDeque<Sample>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn histogram() -> Result<Histogram<u32>> {
    // Two digits: 13 kB.
    Histogram::new_with_bounds(1, MAX_LATENCY, 2).map_err(|error| anyhow!("histogram: {error}"))
}

/// The shard of this thread.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
    }
    SHARD.with(|shard| {
        let number = shard
            .get()
            .unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        shard.set(Some(number));
        number
    })
}

impl History {
    /// A history without samples.
    pub(crate) fn new() -> Result<Self> {
        let empty = histogram()?;
        Ok(Self {
            ended: std::array::from_fn(|_| Mutex::new(empty.clone())),
            samples: Mutex::default(),
        })
    }

    /// A call has ended.
    pub(crate) fn ended(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        lock(&self.ended[shard()]).saturating_record(micros.max(1));
    }

    /// The samples, oldest first.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        lock(&self.samples).iter().copied().collect()
    }

    /// Takes a sample each second, for ever. To be spawned.
    pub(crate) async fn run(&self, presence: &Presence) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        let mut before = (Instant::now(), presence.totals());
        loop {
            ticks.tick().await;
            let now = (Instant::now(), presence.totals());
            self.add(&before.1, &now.1, now.0 - before.0);
            before = now;
        }
    }

    /// Adds the sample of a time between two totals.
    fn add(&self, before: &Totals, now: &Totals, time: Duration) {
        let rate = |before: u64, now: u64| {
            now.saturating_sub(before) as f64 / time.as_secs_f64().max(f64::MIN_POSITIVE)
        };
        let sample = Sample {
            calls: rate(before.calls, now.calls),
            bytes: rate(
                before.bytes_sent + before.bytes_received,
                now.bytes_sent + now.bytes_received,
            ),
            in_flight: now.calls_in_flight as f64,
            latency: self.latency(),
        };
        let mut samples = lock(&self.samples);
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// Takes out the durations of the calls that have ended.
    fn latency(&self) -> Option<Latency> {
        let mut all = histogram().ok()?;
        for shard in &self.ended {
            let mut shard = lock(shard);
            if !shard.is_empty() {
                // Fails only for other bounds.
                all.add(&*shard).ok()?;
                shard.reset();
            }
        }
        let at = |quantile| Duration::from_micros(all.value_at_quantile(quantile));
        (!all.is_empty()).then(|| Latency {
            p50: at(0.5),
            p99: at(0.99),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_the_rates_and_latencies_of_its_time() {
        let history = History::new().expect("legal bounds");
        for took in 1..=100 {
            history.ended(Duration::from_millis(took));
        }
        let now = Totals {
            calls: 30,
            bytes_sent: 400,
            bytes_received: 200,
            calls_in_flight: 7,
            ..Totals::default()
        };
        history.add(&Totals::default(), &now, Duration::from_secs(2));
        let samples = history.samples();
        let Sample {
            calls,
            bytes,
            in_flight,
            latency,
        } = samples[0];
        assert_eq!((calls, bytes, in_flight), (15.0, 300.0, 7.0));
        let Latency { p50, p99 } = latency.expect("calls have ended");
        assert!((49..=51).contains(&p50.as_millis()), "{p50:?}");
        assert!((98..=100).contains(&p99.as_millis()), "{p99:?}");
        history.add(&now, &now, Duration::from_secs(1));
        assert_eq!(history.samples()[1].latency, None);
    }

    #[test]
    fn only_the_last_five_minutes_are_kept() {
        let history = History::new().expect("legal bounds");
        for second in 0..=SAMPLES as u64 {
            let now = Totals {
                calls_in_flight: second,
                ..Totals::default()
            };
            history.add(&now, &now, INTERVAL);
        }
        let samples = history.samples();
        assert_eq!((samples.len(), samples[0].in_flight), (SAMPLES, 1.0));
    }
}
