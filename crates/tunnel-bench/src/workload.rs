//! What is measured.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use futures::stream::{self, StreamExt};
use tonic::body::Body;
use tonic::client::GrpcService;

use crate::proto::bench_client::BenchClient;
use crate::proto::{Blob, DownloadRequest};

/// One workload.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    kind: Kind,
    size: u32,
    at_once: usize,
}

/// What is counted.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Calls,
    Messages,
    Bytes,
}

#[derive(Clone, Copy)]
enum Kind {
    Unary,
    Download,
    Upload,
}

const fn workload(
    name: &'static str,
    unit: Unit,
    kind: Kind,
    size: u32,
    at_once: usize,
) -> Workload {
    Workload {
        name,
        unit,
        kind,
        size,
        at_once,
    }
}

const KIB: u32 = 1024;
const MIB: u32 = 1024 * 1024;

/// All workloads, in the order in which they are run.
pub(crate) const WORKLOADS: &[Workload] = &[
    workload("unary 16 B x 1", Unit::Calls, Kind::Unary, 16, 1),
    workload("unary 16 B x 16", Unit::Calls, Kind::Unary, 16, 16),
    workload("unary 16 B x 64", Unit::Calls, Kind::Unary, 16, 64),
    workload("unary 16 B x 256", Unit::Calls, Kind::Unary, 16, 256),
    workload("unary 64 KiB x 16", Unit::Bytes, Kind::Unary, 64 * KIB, 16),
    workload("download 1 KiB x 1", Unit::Messages, Kind::Download, KIB, 1),
    workload("download 1 KiB x 8", Unit::Messages, Kind::Download, KIB, 8),
    workload("download 1 MiB x 1", Unit::Bytes, Kind::Download, MIB, 1),
    workload("download 1 MiB x 8", Unit::Bytes, Kind::Download, MIB, 8),
    workload("upload 1 MiB x 1", Unit::Bytes, Kind::Upload, MIB, 1),
    workload("upload 1 MiB x 8", Unit::Bytes, Kind::Upload, MIB, 8),
];

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A channel whose type does not matter to what is measured.
pub(crate) trait Channel:
    GrpcService<Body, Future: Send, Error: Send, ResponseBody = Self::Answer>
    + Clone
    + Send
    + Sync
    + 'static
{
    /// The body of its responses.
    type Answer: http_body::Body<Data = Bytes, Error = Self::AnswerError> + Send + 'static;
    /// The error of that body.
    type AnswerError: Into<BoxError> + Send;
}

impl<T> Channel for T
where
    T: GrpcService<Body, Future: Send, Error: Send> + Clone + Send + Sync + 'static,
    T::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<BoxError> + Send,
{
    type Answer = T::ResponseBody;
    type AnswerError = <T::ResponseBody as http_body::Body>::Error;
}

impl Workload {
    /// Runs for a time over a channel and returns the rate, in units a second.
    pub(crate) async fn run<C: Channel>(&self, channel: C, time: Duration) -> Result<f64> {
        let start = Instant::now();
        let until = start + time;
        let tasks = (0..self.at_once).map(|_| {
            let client = BenchClient::new(channel.clone());
            let (kind, size) = (self.kind, self.size);
            let task = tokio::spawn(async move {
                match kind {
                    Kind::Unary => unary(client, size, until).await,
                    Kind::Download => download(client, size, until).await,
                    Kind::Upload => upload(client, size, until).await,
                }
            });
            async { task.await? }
        });
        let messages: u64 = try_join_all(tasks).await?.into_iter().sum();
        let rate = messages as f64 / start.elapsed().as_secs_f64();
        Ok(match self.unit {
            Unit::Bytes => rate * f64::from(self.size),
            Unit::Calls | Unit::Messages => rate,
        })
    }
}

fn blob(size: u32) -> Blob {
    Blob {
        data: Bytes::from(vec![7; size as usize]),
    }
}

async fn unary<C: Channel>(mut client: BenchClient<C>, size: u32, until: Instant) -> Result<u64> {
    let blob = blob(size);
    let mut calls = 0;
    while Instant::now() < until {
        let reply = client.unary(blob.clone()).await?;
        ensure!(
            reply.get_ref().data.len() == size as usize,
            "a wrong answer"
        );
        calls += 1;
    }
    Ok(calls)
}

/// As many messages as make streams long enough that their beginning does not count.
fn batch(size: u32) -> u32 {
    (256 * MIB / size).min(200_000)
}

async fn download<C: Channel>(
    mut client: BenchClient<C>,
    size: u32,
    until: Instant,
) -> Result<u64> {
    let mut messages = 0;
    while Instant::now() < until {
        let request = DownloadRequest {
            size,
            count: batch(size),
        };
        let mut blobs = client.download(request).await?.into_inner();
        while let Some(blob) = blobs.message().await? {
            ensure!(blob.data.len() == size as usize, "a wrong message");
            messages += 1;
            if messages % 64 == 0 && Instant::now() >= until {
                break;
            }
        }
    }
    Ok(messages)
}

async fn upload<C: Channel>(mut client: BenchClient<C>, size: u32, until: Instant) -> Result<u64> {
    let blob = blob(size);
    let blobs = stream::iter(0..batch(size))
        .take_while(move |i| std::future::ready(Instant::now() < until || *i == 0))
        .map(move |_| blob.clone());
    let total = client.upload(blobs).await?.into_inner().bytes;
    Ok(total / u64::from(size))
}
