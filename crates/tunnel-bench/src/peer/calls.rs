//! Timed unary calls.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::channel::{Channel, Clients, blob};
use super::streams::{ENDLESS, MIB};
use super::timing::{Times, nanos, sum_up};
use crate::job::{Load, Measured};
use crate::proto::DownloadRequest;
use crate::proto::bench_client::BenchClient;

/// Runs the job: each caller makes one call after another until the time is up, and at least one.
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

/// Like [`unary`], beside a download of large messages. Calls start after its first message.
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
