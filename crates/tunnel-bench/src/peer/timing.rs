//! Times of calls, and their summary.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;
use hdrhistogram::Histogram;
use tokio::task::JoinHandle;

use crate::job::Measured;

/// The duration of each call or round trip of one caller, in nanoseconds. A list, because a
/// histogram for each of a thousand callers would take too much memory.
pub(super) type Times = Vec<u64>;

/// A duration in nanoseconds.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Waits for all callers and summarises their times.
pub(super) async fn sum_up(
    start: Instant,
    callers: Vec<JoinHandle<Result<Times>>>,
) -> Result<Measured> {
    let times = try_join_all(callers.into_iter().map(|c| async { c.await? })).await?;
    summary(start, times.into_iter().flatten())
}

/// The summary of all calls.
pub(super) fn summary(start: Instant, times: impl IntoIterator<Item = u64>) -> Result<Measured> {
    let seconds = start.elapsed().as_secs_f64();
    let mut histogram = Histogram::<u64>::new(3)?;
    for time in times {
        histogram.record(time)?;
    }
    let at = |quantile| Some(histogram.value_at_quantile(quantile) as f64 / 1e9);
    Ok(Measured {
        count: histogram.len(),
        seconds,
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        ..Measured::default()
    })
}
