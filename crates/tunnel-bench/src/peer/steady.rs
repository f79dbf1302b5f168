//! Arrivals over time, for links on which a stream needs some time to reach its full rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use futures::future::try_join_all;
use futures::stream;
use tokio::time::{Instant, timeout_at};

use super::channel::{Channel, Clients, blob};
use super::streams::{ENDLESS, blobs_until};
use crate::job::{Kind, Measured, Steady};
use crate::proto::DownloadRequest;
use crate::proto::bench_client::BenchClient;

/// Counts bytes or calls by the time at which they arrive.
#[derive(Clone)]
struct Buckets {
    start: Instant,
    until: Instant,
    length: Duration,
    counts: Arc<[AtomicU64]>,
}

impl Buckets {
    fn new(job: &Steady) -> Self {
        let length = Duration::from_millis(job.bucket_millis.max(1));
        let count = job.millis / job.bucket_millis.max(1);
        let start = Instant::now();
        Self {
            start,
            until: start + Duration::from_millis(job.millis),
            length,
            counts: (0..count).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Adds to the current bucket. Arrivals after the last bucket are not counted.
    fn add(&self, what: u64) {
        let bucket = self.start.elapsed().as_nanos() / self.length.as_nanos();
        let bucket = usize::try_from(bucket).unwrap_or(usize::MAX);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(what, Ordering::Relaxed);
        }
    }
}

/// Runs the job and returns the arrivals in each bucket.
pub(super) async fn run<C: Channel>(clients: &Clients<C>, job: Steady) -> Result<Measured> {
    let buckets = Buckets::new(&job);
    let tasks = (0..job.at_once).map(|n| {
        let task = one(clients.get(n), job, buckets.clone());
        let task = tokio::spawn(timeout_at(buckets.until, task));
        // The timeout is the normal end.
        async { task.await?.unwrap_or(Ok(())) }
    });
    try_join_all(tasks).await?;
    let counts = buckets.counts.iter();
    let counts: Vec<u64> = counts.map(|c| c.load(Ordering::Relaxed)).collect();
    Ok(Measured {
        count: counts.iter().sum(),
        seconds: buckets.start.elapsed().as_secs_f64(),
        buckets: Some(counts),
        ..Measured::default()
    })
}

async fn one<C: Channel>(client: BenchClient<C>, job: Steady, buckets: Buckets) -> Result<()> {
    match job.kind {
        Kind::Download => download(client, job.size, &buckets).await?,
        Kind::Upload => upload(client, job.size, &buckets).await?,
        Kind::Unary => unary(client, job.size, &buckets).await?,
    }
    bail!("a stream ended too early")
}

async fn download<C: Channel>(
    mut client: BenchClient<C>,
    size: u32,
    buckets: &Buckets,
) -> Result<()> {
    let request = DownloadRequest {
        size,
        count: ENDLESS,
    };
    let mut blobs = client.download(request).await?.into_inner();
    while let Some(blob) = blobs.message().await? {
        buckets.add(blob.data.len() as u64);
    }
    Ok(())
}

/// Counts by the peer's receipts, because up to a window of the sent bytes is still in flight.
async fn upload<C: Channel>(
    mut client: BenchClient<C>,
    size: u32,
    buckets: &Buckets,
) -> Result<()> {
    let far = buckets.until.into_std() + Duration::from_secs(60);
    let blobs = stream::iter(blobs_until(size, far));
    let mut receipts = client.receipts(blobs).await?.into_inner();
    let mut before = 0;
    while let Some(total) = receipts.message().await? {
        buckets.add(total.bytes - before);
        before = total.bytes;
    }
    Ok(())
}

async fn unary<C: Channel>(mut client: BenchClient<C>, size: u32, buckets: &Buckets) -> Result<()> {
    let blob = blob(size);
    loop {
        client.unary(blob.clone()).await?;
        buckets.add(1);
    }
}
