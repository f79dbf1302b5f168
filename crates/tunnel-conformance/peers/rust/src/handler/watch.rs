//! What has become of the calls that have a name.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::proto::watch_request::Until;
use crate::proto::watch_response::State;
use crate::proto::{WatchRequest, WatchResponse};

/// What is known of the calls that have a name. Clones are the same records.
#[derive(Clone, Default)]
pub(super) struct Records(Arc<watch::Sender<HashMap<String, WatchResponse>>>);

impl Records {
    /// Changes the record of a call, if it has a name, and wakes whoever waits for that.
    pub(super) fn update(&self, call: &str, change: impl FnOnce(&mut WatchResponse)) {
        if call.is_empty() {
            return;
        }
        self.0.send_modify(|calls| {
            change(calls.entry(call.to_owned()).or_default());
        });
    }

    /// Waits for what a request asks for, as long as it wants to wait.
    pub(super) async fn wait(&self, request: &WatchRequest) -> WatchResponse {
        let mut calls = self.0.subscribe();
        let reached = calls.wait_for(|calls| {
            let record = calls.get(&request.call);
            record.is_some_and(|record| reached(record.state(), request.until()))
        });
        let limit = Duration::from_millis(request.wait_ms.into());
        // In time or not, what is true by now is the answer.
        let _ = tokio::time::timeout(limit, reached).await;
        self.0
            .borrow()
            .get(&request.call)
            .copied()
            .unwrap_or_default()
    }
}

fn reached(state: State, until: Until) -> bool {
    match state {
        State::Unknown => false,
        State::Running => until == Until::Begun,
        State::Completed | State::Cancelled | State::Broken => true,
    }
}
