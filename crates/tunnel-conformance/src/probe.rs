//! What happens at the far side, as events that a test can await.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::watch;
use tonic::Code;

/// Sees into the handlers of one service, and holds their gates. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Probe(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    records: watch::Sender<HashMap<String, Record>>,
    // Apart from the records, so that a thousand calls at a gate are not woken
    // each time another one starts.
    gates: watch::Sender<HashSet<String>>,
}

/// What has happened to the calls of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Calls whose handler began.
    pub started: u64,
    /// Calls whose handler came to the end of its script.
    pub finished: u64,
    /// Calls whose handler was dropped before that.
    pub dropped: u64,
    /// Request messages the handlers were given.
    pub received: u64,
    /// Response messages the handlers handed over.
    pub sent: u64,
    /// Request streams that ended cleanly.
    pub inputs_ended: u64,
    /// How each request stream that failed did so.
    pub inputs_failed: Vec<Code>,
}

impl Record {
    /// Whether a request stream came to an end of either sort.
    pub fn input_is_over(&self) -> bool {
        self.inputs_ended > 0 || !self.inputs_failed.is_empty()
    }
}

impl Probe {
    /// What has happened so far to the calls of this name.
    pub fn record(&self, call: &str) -> Record {
        self.0
            .records
            .borrow()
            .get(call)
            .cloned()
            .unwrap_or_default()
    }

    /// Waits until the record of this name is as wanted, and gives it.
    pub async fn until(&self, call: &str, wanted: impl Fn(&Record) -> bool) -> Record {
        let mut records = self.0.records.subscribe();
        let records = records
            .wait_for(|records| records.get(call).is_some_and(&wanted))
            .await
            .expect("the probe outlives its waiters");
        records.get(call).cloned().unwrap_or_default()
    }

    /// Waits until a handler of this name has begun.
    pub async fn started(&self, call: &str) {
        self.until(call, |record| record.started > 0).await;
    }

    /// Waits until a handler of this name has come to its own end.
    pub async fn finished(&self, call: &str) {
        self.until(call, |record| record.finished > 0).await;
    }

    /// Waits until a handler of this name was dropped before its end: what a
    /// cancelled call looks like from inside.
    pub async fn dropped(&self, call: &str) {
        self.until(call, |record| record.dropped > 0).await;
    }

    /// Waits until a handler of this name is gone, by itself or not.
    pub async fn over(&self, call: &str) -> Record {
        let over = |record: &Record| record.finished + record.dropped > 0;
        self.until(call, over).await
    }

    /// Waits until handlers of this name were given so many request messages.
    pub async fn received(&self, call: &str, count: u64) {
        self.until(call, |record| record.received >= count).await;
    }

    /// Waits until handlers of this name have handed over so many responses.
    pub async fn sent(&self, call: &str, count: u64) {
        self.until(call, |record| record.sent >= count).await;
    }

    /// Opens a gate, for all who wait there now or later.
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
