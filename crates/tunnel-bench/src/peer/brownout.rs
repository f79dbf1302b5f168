//! Callers whose calls all time out, as when the handlers of a service have become slow.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;
use tokio::time::{sleep, timeout};
use tonic::{Code, Request, Response, Status};

use super::channel::{Channel, Clients, blob};
use crate::job::{Brownout, Ends, Measured};
use crate::proto::Blob;
use crate::proto::bench_client::BenchClient;

/// The longest pause of a caller after a call that did not time out.
const PAUSE: Duration = Duration::from_millis(100);

/// The outcomes of one caller's calls.
#[derive(Default)]
struct Tally {
    timeouts: u64,
    failures: BTreeMap<String, u64>,
}

/// Runs the job: each caller makes one call after another until the time is up, and at least one.
pub(super) async fn run<C: Channel>(clients: &Clients<C>, job: Brownout) -> Result<Measured> {
    let start = Instant::now();
    let until = start + Duration::from_millis(job.millis);
    let callers = (0..job.callers).map(|n| tokio::spawn(caller(clients.get(n), job, until)));
    let mut measured = Measured::default();
    for tally in try_join_all(callers).await? {
        measured.count += tally.timeouts;
        for (failure, count) in tally.failures {
            *measured.failures.entry(failure).or_default() += count;
        }
    }
    measured.seconds = start.elapsed().as_secs_f64();
    Ok(measured)
}

async fn caller<C: Channel>(mut client: BenchClient<C>, job: Brownout, until: Instant) -> Tally {
    let limit = Duration::from_millis(job.timeout_millis);
    let mut tally = Tally::default();
    loop {
        let failed = match job.ends {
            Ends::Drop => dropped(&mut client, limit).await,
            Ends::Deadline => expired(&mut client, limit).await,
        };
        match failed {
            None => tally.timeouts += 1,
            Some(failure) => {
                *tally.failures.entry(failure).or_default() += 1;
                // Pause, so that calls that fail at once do not become a busy loop.
                sleep(limit.min(PAUSE)).await;
            }
        }
        if Instant::now() >= until {
            return tally;
        }
    }
}

/// Makes a call and drops its future after `limit`. Returns what happened if the call ended before.
async fn dropped<C: Channel>(client: &mut BenchClient<C>, limit: Duration) -> Option<String> {
    let ended = timeout(limit, client.unary(blob(16))).await;
    ended.ok().map(describe)
}

/// Makes a call with a deadline. Returns what happened if the call ended in another way.
async fn expired<C: Channel>(client: &mut BenchClient<C>, limit: Duration) -> Option<String> {
    let mut request = Request::new(blob(16));
    request.set_timeout(limit);
    let ended = client.unary(request).await;
    let is_timeout = ended.as_ref().is_err_and(|status| match status.code() {
        Code::DeadlineExceeded => true,
        // How tonic's client reports an expired deadline.
        Code::Cancelled => status.message() == "Timeout expired",
        _ => false,
    });
    (!is_timeout).then(|| describe(ended))
}

fn describe(ended: Result<Response<Blob>, Status>) -> String {
    match ended {
        Ok(_) => "an answer before the timeout".to_owned(),
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}
