//! Unary calls, each of them timed.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use hdrhistogram::Histogram;
use tokio::task::JoinHandle;

use super::channel::{Channel, Clients, blob};
use super::streams::{ENDLESS, MIB};
use crate::job::{Load, Measured};
use crate::proto::DownloadRequest;
use crate::proto::bench_client::BenchClient;

/// How long each call or turn of one caller took, in nanoseconds. A plain list, for a histogram
/// for each of a thousand callers would be half a gigabyte.
pub(super) type Times = Vec<u64>;

/// Nanoseconds of a time.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Waits for all callers and sums up what they timed.
pub(super) async fn sum_up(
    start: Instant,
    callers: Vec<JoinHandle<Result<Times>>>,
) -> Result<Measured> {
    let times = try_join_all(callers.into_iter().map(|c| async { c.await? })).await?;
    summary(start, times.into_iter().flatten())
}

/// What all calls together came to.
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

/// Each caller makes one call after another until the time is up, and at least one.
pub(super) async fn unary<C: Channel>(clients: &Clients<C>, load: Load) -> Result<Measured> {
    let start = Instant::now();
    let until = start + Duration::from_millis(load.millis);
    let callers = (0..load.at_once)
        .map(|n| tokio::spawn(caller(clients.share(n, load.at_once), load.size, until)))
        .collect();
    sum_up(start, callers).await
}

async fn caller<C: Channel>(
    mut clients: Vec<BenchClient<C>>,
    size: u32,
    until: Instant,
) -> Result<Times> {
    let blob = blob(size);
    let mut times = Times::new();
    let mut turn = 0;
    let mut before = Instant::now();
    loop {
        let reply = clients[turn].unary(blob.clone()).await?;
        ensure!(
            reply.get_ref().data.len() == size as usize,
            "a wrong answer"
        );
        let now = Instant::now();
        times.push(nanos(now - before));
        before = now;
        if now >= until {
            return Ok(times);
        }
        turn = if turn + 1 == clients.len() {
            0
        } else {
            turn + 1
        };
    }
}

/// The same while a stream of large messages is read, from its first message on.
pub(super) async fn beside_stream<C: Channel>(
    clients: &Clients<C>,
    callers: usize,
    size: u32,
    millis: u64,
) -> Result<Measured> {
    let request = DownloadRequest {
        size: MIB,
        count: ENDLESS,
    };
    let mut blobs = clients.get(0).download(request).await?.into_inner();
    blobs.message().await?;
    let millis = Duration::from_millis(millis);
    let until = Instant::now() + millis;
    let stream = tokio::spawn(async move {
        let mut bytes = 0;
        while Instant::now() < until
            && let Some(blob) = blobs.message().await?
        {
            bytes += blob.data.len() as u64;
        }
        anyhow::Ok(bytes)
    });
    let load = Load {
        size,
        at_once: callers,
        millis: u64::try_from(millis.as_millis())?,
    };
    let measured = unary(clients, load).await?;
    Ok(Measured {
        beside_bytes: Some(stream.await??),
        ..measured
    })
}
