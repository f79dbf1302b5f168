//! Observes the handlers of a service, with events that a test can await.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::watch;
use tonic::Code;

/// Observes the handlers of a service, and controls their gates. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Probe(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    records: watch::Sender<HashMap<String, Record>>,
    // Separate from the records, so that calls that wait at a gate are not woken by every record.
    gates: watch::Sender<HashSet<String>>,
}

/// The events of the calls with one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The number of handlers that started.
    pub started: u64,
    /// The number of handlers that reached the end of their script.
    pub finished: u64,
    /// The number of handlers that were dropped before the end of their script.
    pub dropped: u64,
    /// The number of request messages that the handlers received.
    pub received: u64,
    /// The number of response messages that the handlers sent.
    pub sent: u64,
    /// The number of request streams that ended cleanly.
    pub inputs_ended: u64,
    /// The status codes of the request streams that failed.
    pub inputs_failed: Vec<Code>,
}

impl Record {
    /// Whether a request stream has ended, cleanly or with an error.
    pub fn input_is_over(&self) -> bool {
        self.inputs_ended > 0 || !self.inputs_failed.is_empty()
    }
}

impl Probe {
    /// The events so far of the calls with this name.
    pub fn record(&self, call: &str) -> Record {
        self.0
            .records
            .borrow()
            .get(call)
            .cloned()
            .unwrap_or_default()
    }

    /// Waits until the record of this name meets a condition, and returns it.
    pub async fn until(&self, call: &str, wanted: impl Fn(&Record) -> bool) -> Record {
        let mut records = self.0.records.subscribe();
        let records = records
            .wait_for(|records| records.get(call).is_some_and(&wanted))
            .await
            .expect("the probe outlives its waiters");
        records.get(call).cloned().unwrap_or_default()
    }

    /// Waits until a handler of this name has started.
    pub async fn started(&self, call: &str) {
        self.until(call, |record| record.started > 0).await;
    }

    /// Waits until a handler of this name has reached the end of its script.
    pub async fn finished(&self, call: &str) {
        self.until(call, |record| record.finished > 0).await;
    }

    /// Waits until a handler of this name was dropped before its end, as in a cancelled call.
    pub async fn dropped(&self, call: &str) {
        self.until(call, |record| record.dropped > 0).await;
    }

    /// Waits until a handler of this name has finished or was dropped.
    pub async fn over(&self, call: &str) -> Record {
        let over = |record: &Record| record.finished + record.dropped > 0;
        self.until(call, over).await
    }

    /// Waits until handlers of this name have received `count` request messages.
    pub async fn received(&self, call: &str, count: u64) {
        self.until(call, |record| record.received >= count).await;
    }

    /// Waits until handlers of this name have sent `count` response messages.
    pub async fn sent(&self, call: &str, count: u64) {
        self.until(call, |record| record.sent >= count).await;
    }

    /// Opens a gate for all handlers that wait for it, now or later.
    pub fn open(&self, gate: &str) {
        self.0.gates.send_modify(|gates| {
            gates.insert(gate.to_owned());
        });
    }

    pub(crate) async fn pass(&self, gate: &str) {
        let mut gates = self.0.gates.subscribe();
        gates
            .wait_for(|gates| gates.contains(gate))
            .await
            .expect("the probe outlives its waiters");
    }

    pub(crate) fn note(&self, call: &str, change: impl FnOnce(&mut Record)) {
        self.0.records.send_modify(|records| {
            change(records.entry(call.to_owned()).or_default());
        });
    }
}
