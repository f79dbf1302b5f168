//! Many calls on one tunnel, all at the same time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Result;
use example_support::caller::Caller;
use futures::{StreamExt, TryStreamExt, stream};
use tracing::info;
use tunnel_client::TunnelChannel;

/// The most calls in flight at once. A tunnel's default limit is 1,024.
const AT_ONCE: usize = 1000;

/// How often the progress is shown.
const PROGRESS_LINES: usize = 4;

pub(crate) async fn run(caller: &Caller<TunnelChannel>, calls: usize) -> Result<()> {
    info!(
        "{calls} calls, up to {} at the same time",
        calls.min(AT_ONCE)
    );
    let in_flight = InFlight::default();
    let start = Instant::now();
    let mut answers = stream::iter(1..=calls)
        .map(|n| call(caller, n, &in_flight))
        .buffer_unordered(AT_ONCE);
    let mut right = 0;
    while let Some(()) = answers.try_next().await? {
        right += 1;
        if right % calls.div_ceil(PROGRESS_LINES) == 0 || right == calls {
            info!("{right} of {calls} answered");
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    info!(
        "{calls} calls on one tunnel, {right} right answers, {} in flight at once, {seconds:.2} s, \
         {:.0} calls a second",
        in_flight.highest(),
        right as f64 / seconds,
    );
    Ok(())
}

/// One call with a unique message.
async fn call(caller: &Caller<TunnelChannel>, n: usize, in_flight: &InFlight) -> Result<()> {
    in_flight.begin();
    let answer = caller.echo(&format!("Call #{n}")).await;
    in_flight.end();
    answer.map(|_| ())
}

/// Counts the calls in flight.
#[derive(Default)]
struct InFlight {
    now: AtomicUsize,
    highest: AtomicUsize,
}

impl InFlight {
    fn begin(&self) {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.highest.fetch_max(now, Ordering::Relaxed);
    }

    fn end(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }

    fn highest(&self) -> usize {
        self.highest.load(Ordering::Relaxed)
    }
}
