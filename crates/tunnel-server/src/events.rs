//! Events: a stream of tunnels that open and close.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tunnel_core::EndReason;
use tunnel_tonic::TunnelInfo;

use crate::AcceptedTunnel;

/// Something that happened to a tunnel of a handler.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TunnelEvent {
    /// A tunnel has opened and takes calls.
    Opened(AcceptedTunnel),
    /// A tunnel that had opened is closed.
    #[non_exhaustive]
    Closed {
        /// Its properties.
        info: TunnelInfo,
        /// Why it ended.
        reason: EndReason,
    },
    /// The subscriber was too slow and has missed this number of events.
    Missed(u64),
}

/// A stream of [`TunnelEvent`]s; from
/// [`TunnelServiceHandler::events`](crate::TunnelServiceHandler::events). It ends when the handler,
/// its services, its channels and its tunnels have gone.
///
/// The events of one tunnel come in order; those of different tunnels may not. At most 1,024 events wait
/// for a slow subscriber. Then the oldest are dropped, and [`Missed`](TunnelEvent::Missed) has their
/// number. Tunnels never wait for a subscriber.
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct TunnelEvents {
    inner: BroadcastStream<TunnelEvent>,
}

impl TunnelEvents {
    pub(crate) fn new(receiver: broadcast::Receiver<TunnelEvent>) -> Self {
        Self {
            inner: BroadcastStream::new(receiver),
        }
    }
}

impl Stream for TunnelEvents {
    type Item = TunnelEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<TunnelEvent>> {
        Pin::new(&mut self.inner).poll_next(cx).map(|event| {
            event.map(|event| match event {
                Ok(event) => event,
                Err(BroadcastStreamRecvError::Lagged(n)) => TunnelEvent::Missed(n),
            })
        })
    }
}
