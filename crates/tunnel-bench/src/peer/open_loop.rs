//! Calls at a fixed rate: each call is made when it is due, however many are still in flight.
//!
//! The latency of a call counts from when it was due. So a stall delays every call that is due
//! during it, as it would with independent users.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, spawn_blocking};

use super::channel::{Channel, Clients, blob};
use super::timing::{nanos, summary};
use crate::job::{Measured, OpenLoop};
use crate::proto::Blob;
use crate::proto::bench_client::BenchClient;

/// Makes all calls and waits for the last of them.
pub(super) async fn run<C: Channel>(clients: &Clients<C>, job: OpenLoop) -> Result<Measured> {
    let (clients, runtime) = (clients.clone(), Handle::current());
    let start = Instant::now();
    // The runtime's timer is too coarse, and late when the runtime is busy.
    let calls = spawn_blocking(move || make_calls(&clients, job, start, &runtime)).await?;
    let calls = calls.into_iter().map(|call| async { call.await? });
    summary(start, try_join_all(calls).await?)
}

fn make_calls<C: Channel>(
    clients: &Clients<C>,
    job: OpenLoop,
    start: Instant,
    runtime: &Handle,
) -> Vec<JoinHandle<Result<u64>>> {
    let blob = blob(job.size);
    let each = Duration::from_secs(1) / job.per_second.max(1);
    let until = start + Duration::from_millis(job.millis);
    let mut calls = Vec::new();
    let mut due = start;
    while due < until {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let client = clients.get(calls.len());
        calls.push(runtime.spawn(call(client, blob.clone(), due)));
        due += each;
    }
    calls
}

/// Makes one call. Returns the nanoseconds from when it was due to its response.
async fn call<C: Channel>(mut client: BenchClient<C>, blob: Blob, due: Instant) -> Result<u64> {
    let size = blob.data.len();
    let reply = client.unary(blob).await?;
    ensure!(reply.get_ref().data.len() == size, "a wrong answer");
    Ok(nanos(due.elapsed()))
}
