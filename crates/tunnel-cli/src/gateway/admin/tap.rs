//! A stream of calls as they begin and end.

use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures::{Stream, stream};
use tonic::Status;

use super::drain::Drain;
use super::list::Filter;
use super::view;
use crate::admin::api;
use crate::admin::api::tap_event;
use crate::gateway::tap::{Event, Tap, Taps};

pub(crate) type Events = Pin<Box<dyn Stream<Item = Result<api::TapEvent, Status>> + Send>>;

/// The calls of the keys that a filter matches, until the gateway is drained.
pub(super) fn events(taps: &Arc<Taps>, drain: &Drain, filter: Filter, body: usize) -> Events {
    let matches = filter.clone();
    let tap = taps.tap(Box::new(move |key| matches.matches(key)), body);
    let state = (tap, drain.clone());
    Box::pin(stream::unfold(state, move |(mut tap, drain)| {
        let filter = filter.clone();
        async move {
            let event = next(&mut tap, &drain, &filter, body).await?;
            Some((Ok(event), (tap, drain)))
        }
    }))
}

async fn next(tap: &mut Tap, drain: &Drain, filter: &Filter, body: usize) -> Option<api::TapEvent> {
    loop {
        let event = tokio::select! {
            biased;
            event = tap.next() => event?,
            () = drain.drained() => return None,
        };
        match event {
            Ok(event) if filter.matches(event.call.key.as_deref().unwrap_or_default()) => {
                return Some(message(&event, body));
            }
            Ok(_) => {}
            Err(events) => {
                return Some(api::TapEvent {
                    at: Some(SystemTime::now().into()),
                    event: Some(tap_event::Event::Missed(api::Missed { events })),
                    ..api::TapEvent::default()
                });
            }
        }
    }
}

fn message(event: &Event, body: usize) -> api::TapEvent {
    let text = |text: &Option<Arc<str>>| text.as_deref().unwrap_or_default().to_owned();
    // Another reader may have wanted more.
    let first = |bytes: &Bytes| bytes.slice(..bytes.len().min(body));
    let what = match &event.ended {
        None => tap_event::Event::Began(api::CallBegan {}),
        Some(ended) => tap_event::Event::Ended(api::CallEnded {
            status: ended.status.to_owned(),
            message: ended.message.clone(),
            duration: Some(view::duration(ended.duration)),
            bytes_received: ended.bytes_received,
            bytes_sent: ended.bytes_sent,
            request: first(&ended.request),
            response: first(&ended.response),
        }),
    };
    api::TapEvent {
        at: Some(event.at.into()),
        call: event.call.number,
        key: text(&event.call.key),
        method: event.call.method.clone(),
        who: text(&event.call.who),
        peer: event.call.peer.clone().unwrap_or_default(),
        event: Some(what),
        // Said by those who merge the streams of several gateways.
        gateway: String::new(),
    }
}
