//! Events: a stream of tunnels that open, close or are not opened.

use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tunnel_core::{EndReason, Stats};

use crate::{TunnelError, TunnelInfo};

/// How many events a subscriber may be behind.
const EVENTS: usize = 1024;

/// Something that happened to a tunnel of a gateway or a device.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TunnelEvent {
    /// A tunnel has opened and takes calls.
    Opened(TunnelInfo),
    /// A tunnel that had opened is closed.
    #[non_exhaustive]
    Closed {
        /// Its properties.
        info: TunnelInfo,
        /// Why it ended.
        reason: EndReason,
        /// Its final counters.
        stats: Box<Stats>,
    },
    /// A tunnel was not opened. A gateway has refused it ([`TunnelError::Refused`]); a device was refused, or
    /// has not reached its gateway.
    #[non_exhaustive]
    NotOpened {
        /// The properties that it would have had.
        info: TunnelInfo,
        /// Why it was not opened.
        error: TunnelError,
    },
    /// The subscriber was too slow and has missed this number of events.
    Missed(u64),
}

/// A stream of [`TunnelEvent`]s. It ends when the handler, server or channel that it is from has gone, with
/// its tunnels.
///
/// The events of one tunnel come in order; those of different tunnels may not. At most 1,024 events wait
/// for a slow subscriber. Then the oldest are dropped, and [`Missed`](TunnelEvent::Missed) has their
/// number. Tunnels never wait for a subscriber.
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct TunnelEvents {
    inner: BroadcastStream<TunnelEvent>,
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

/// Reports the tunnels of a gateway or a device, and counts the open ones. For crates that open or accept
/// tunnels. No method waits; none may be called under a lock, because subscribers are woken.
#[derive(Debug)]
pub struct TunnelReporter {
    /// Made for the first subscriber, because it takes 100 kB.
    events: OnceLock<broadcast::Sender<TunnelEvent>>,
    open: watch::Sender<usize>,
}

impl Default for TunnelReporter {
    fn default() -> Self {
        Self {
            events: OnceLock::new(),
            open: watch::Sender::new(0),
        }
    }
}

impl TunnelReporter {
    /// Reports a tunnel that has opened.
    pub fn opened(&self, info: &TunnelInfo) {
        self.open.send_modify(|open| *open += 1);
        self.send(TunnelEvent::Opened(info.clone()));
    }

    /// Reports that a tunnel that had opened is closed.
    pub fn closed(&self, info: &TunnelInfo, reason: &EndReason, stats: &Stats) {
        self.open.send_modify(|open| *open = open.saturating_sub(1));
        self.send(TunnelEvent::Closed {
            info: info.clone(),
            reason: reason.clone(),
            stats: Box::new(*stats),
        });
    }

    /// Reports a tunnel that was not opened.
    pub fn not_opened(&self, info: TunnelInfo, error: TunnelError) {
        self.send(TunnelEvent::NotOpened { info, error });
    }

    fn send(&self, event: TunnelEvent) {
        if let Some(events) = self.events.get() {
            // Fails without subscribers.
            let _ = events.send(event);
        }
    }

    fn events(&self) -> &broadcast::Sender<TunnelEvent> {
        self.events.get_or_init(|| broadcast::Sender::new(EVENTS))
    }

    /// A stream of the events from now on.
    pub fn subscribe(&self) -> TunnelEvents {
        TunnelEvents {
            inner: BroadcastStream::new(self.events().subscribe()),
        }
    }

    /// The number of open tunnels, now and after each change.
    pub fn open(&self) -> watch::Receiver<usize> {
        self.open.subscribe()
    }
}
