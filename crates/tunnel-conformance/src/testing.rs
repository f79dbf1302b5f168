//! What the tests of tunnels have in common, besides the cases of the suite.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::client::run;
use crate::harness::guard;
use crate::payload::{assert_pattern, request};
use crate::proto::Script;
use crate::{Client, Kind, Outcome, Probe};

/// Longer than any test lasts: a wait of this length never ends.
pub const NEVER: Duration = Duration::from_secs(12 * 60 * 60);

/// Runs a test, and fails it by name if it hangs.
pub async fn guarded(test: impl Future<Output = ()>) {
    let thread = std::thread::current();
    guard(thread.name().unwrap_or("the test"), test).await;
}

/// Waits for a condition that no event reports. [`guarded`] fails a test that waits in vain.
pub async fn eventually(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::task::yield_now().await;
    }
}

/// Makes a short call and returns its outcome.
pub async fn short_call(client: &Client) -> Outcome {
    let script = Script::named("short").echo_all();
    run(client, Kind::Unary, &script, vec![request(7, 1000)]).await
}

/// Panics unless a short call succeeds.
pub async fn assert_usable(client: &Client) {
    let outcome = short_call(client).await;
    assert_pattern(&outcome.expect_success()[0].payload, 7, 1000);
}

/// A call that lasts until its gate opens.
#[derive(Debug)]
pub struct LongCall {
    probe: Probe,
    gate: String,
    call: JoinHandle<Outcome>,
}

impl LongCall {
    /// Starts a call and waits until it has arrived.
    pub async fn begin(client: &Client, probe: &Probe, name: &str) -> Self {
        let script = Script::named(name).wait(name).echo_all();
        let client = client.clone();
        let call = async move { run(&client, Kind::Unary, &script, vec![request(1, 10)]).await };
        let call = tokio::spawn(call);
        probe.started(name).await;
        Self {
            probe: probe.clone(),
            gate: name.to_owned(),
            call,
        }
    }

    /// Opens the gate and returns the outcome.
    pub async fn finish(self) -> Outcome {
        self.probe.open(&self.gate);
        self.outcome().await
    }

    /// Returns the outcome of a call whose gate stays closed.
    pub async fn outcome(self) -> Outcome {
        self.call.await.expect("the call does not panic")
    }
}
