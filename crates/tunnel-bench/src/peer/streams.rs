//! Streaming calls of all kinds.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use futures::stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::channel::{Channel, Clients, blob};
use super::timing::{Times, nanos, sum_up};
use crate::job::{Load, Measured};
use crate::proto::bench_client::BenchClient;
use crate::proto::{Blob, DownloadRequest};

pub(super) const MIB: u32 = 1 << 20;

/// The largest number of messages that can be requested: more than any measurement receives.
pub(super) const ENDLESS: u32 = u32::MAX;

/// The number of messages between two reads of the clock. A small message takes little longer than
/// reading the clock.
fn messages_between_looks(size: u32) -> u64 {
    u64::from((64 * 1024 / size.max(1)).clamp(1, 64))
}

/// Messages of one size, until a point in time. At least one.
pub(super) fn blobs_until(
    size: u32,
    until: Instant,
) -> impl Iterator<Item = Blob> + Send + 'static {
    let blob = blob(size);
    let looks = messages_between_looks(size);
    (0u64..).map_while(move |n| {
        let go_on = n == 0 || n % looks != 0 || Instant::now() < until;
        go_on.then(|| blob.clone())
    })
}

/// Server streams, each read until the time is up.
pub(super) async fn download<C: Channel>(clients: &Clients<C>, load: Load) -> Result<Measured> {
    let start = Instant::now();
    let until = start + Duration::from_millis(load.millis);
    let streams = (0..load.at_once).map(|n| {
        let stream = tokio::spawn(read(clients.get(n), load.size, until));
        async { stream.await? }
    });
    sum(start, try_join_all(streams).await?)
}

async fn read<C: Channel>(mut client: BenchClient<C>, size: u32, until: Instant) -> Result<u64> {
    let request = DownloadRequest {
        size,
        count: ENDLESS,
    };
    let looks = messages_between_looks(size);
    let mut blobs = client.download(request).await?.into_inner();
    let mut messages = 0;
    while let Some(blob) = blobs.message().await? {
        ensure!(blob.data.len() == size as usize, "a wrong message");
        messages += 1;
        if messages % looks == 0 && Instant::now() >= until {
            break;
        }
    }
    Ok(messages)
}

/// Client streams, each written until the time is up. Then waits until everything has arrived.
pub(super) async fn upload<C: Channel>(clients: &Clients<C>, load: Load) -> Result<Measured> {
    let start = Instant::now();
    let until = start + Duration::from_millis(load.millis);
    let streams = (0..load.at_once).map(|n| {
        let stream = tokio::spawn(write(clients.get(n), load.size, until));
        async { stream.await? }
    });
    sum(start, try_join_all(streams).await?)
}

async fn write<C: Channel>(mut client: BenchClient<C>, size: u32, until: Instant) -> Result<u64> {
    let blobs = stream::iter(blobs_until(size, until));
    let total = client.upload(blobs).await?.into_inner().bytes;
    Ok(total / u64::from(size.max(1)))
}

fn sum(start: Instant, messages: Vec<u64>) -> Result<Measured> {
    Ok(Measured {
        count: messages.into_iter().sum(),
        seconds: start.elapsed().as_secs_f64(),
        ..Measured::default()
    })
}

/// Bidirectional streams with one message in flight at a time. Each round trip is timed; a stream
/// makes at least one.
pub(super) async fn ping_pong<C: Channel>(clients: &Clients<C>, load: Load) -> Result<Measured> {
    let start = Instant::now();
    let until = start + Duration::from_millis(load.millis);
    let streams = (0..load.at_once)
        .map(|n| tokio::spawn(player(clients.get(n), load.size, until)))
        .collect();
    sum_up(start, streams).await
}

async fn player<C: Channel>(
    mut client: BenchClient<C>,
    size: u32,
    until: Instant,
) -> Result<Times> {
    let blob = blob(size);
    let (pings, receiver) = mpsc::channel(1);
    let pongs = client.ping_pong(ReceiverStream::new(receiver)).await?;
    let mut pongs = pongs.into_inner();
    let mut times = Times::new();
    let mut before = Instant::now();
    loop {
        pings.send(blob.clone()).await?;
        let pong = pongs.message().await?.context("the echo ended")?;
        ensure!(pong.data.len() == size as usize, "a wrong echo");
        let now = Instant::now();
        times.push(nanos(now - before));
        before = now;
        if now >= until {
            return Ok(times);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_whose_time_is_up_still_sends_one_message() {
        let blobs = blobs_until(MIB, Instant::now());
        assert_eq!(blobs.count(), 1);
    }

    #[test]
    fn the_clock_is_looked_at_after_each_large_message() {
        assert_eq!(messages_between_looks(MIB), 1);
        assert_eq!(messages_between_looks(1024), 64);
    }
}
