//! A stream of what is true now, and of what changes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use futures::{Stream, StreamExt as _, stream};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tonic::Status;

use super::drain::Drain;
use super::list::Filter;
use super::view;
use crate::admin::api;
use crate::admin::api::watch_event::Event;
use crate::gateway::change::Change;
use crate::gateway::deny::DenyList;
use crate::gateway::presence::Presence;

pub(crate) type Events = Pin<Box<dyn Stream<Item = Result<api::WatchEvent, Status>> + Send>>;

/// The events of the keys that a filter matches, until the gateway is drained.
pub(super) fn events(
    presence: &Presence,
    deny: &DenyList,
    drain: &Drain,
    filter: Filter,
) -> impl Stream<Item = Result<api::WatchEvent, Status>> + Send + 'static {
    let (mut present, changes) = presence.subscribe();
    // After the subscription: a denial in between is sent twice rather than not at all.
    let denied = deny.by_key();
    for key in denied.keys() {
        let known = || presence.device(key).unwrap_or_default();
        present.entry(key.as_str().into()).or_insert_with(known);
    }
    present.retain(|key, _| filter.matches(key));
    let now = SystemTime::now();
    let present = stream::iter(present).map(move |(key, device)| {
        let device = view::device(&key, &device, denied.get(&*key));
        view::event(now, &key, Event::Present(device))
    });
    let synced = view::event(now, "", Event::Synced(api::Synced {}));
    let drain = drain.clone();
    let state = (changes, drain, filter);
    let changes = stream::unfold(state, |(mut changes, drain, filter)| async {
        let event = next(&mut changes, &drain, &filter).await?;
        Some((event, (changes, drain, filter)))
    });
    present.chain(stream::iter([synced])).chain(changes).map(Ok)
}

/// The next change; `None` when the gateway is drained and all changes were sent.
async fn next(
    changes: &mut Receiver<Arc<Change>>,
    drain: &Drain,
    filter: &Filter,
) -> Option<api::WatchEvent> {
    loop {
        let change = tokio::select! {
            biased;
            change = changes.recv() => change,
            () = drain.drained() => return None,
        };
        match change {
            Ok(change) if filter.matches(&change.key) => return Some(view::change(&change)),
            Ok(_) => {}
            Err(RecvError::Lagged(events)) => {
                let missed = Event::Missed(api::Missed { events });
                return Some(view::event(SystemTime::now(), "", missed));
            }
            Err(RecvError::Closed) => return None,
        }
    }
}
