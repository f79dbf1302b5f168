//! Streams of all gateways as one.
//!
//! It has the events of this gateway, and ends with them. Once a second it looks which other gateways can be reached, and
//! adds their streams. A gateway whose stream ends or does not begin is said to be down, once, and to be up when its
//! stream begins again. No stream is read faster than the merged one.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, stream};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tokio_stream::StreamMap;
use tonic::{Status, Streaming};
use tunnel_fleet::Fleet;
use tunnel_server::{TunnelChannel, TunnelId};

use super::merge;
use super::peers::{PATIENCE, reachable, silent};
use crate::admin::api;
use crate::admin::api::{tap_event, watch_event};

/// How often it looks for gateways that have come.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why a gateway is down.
const SILENT: &str = "it does not answer";

/// An event of a stream.
pub(super) trait Event: Sized + Send + Unpin + 'static {
    /// Names the gateway where it has happened.
    fn at(self, gateway: &str) -> Self;

    /// A gateway answers.
    fn up(gateway: &str) -> Self;

    /// A gateway does not answer.
    fn down(gateway: &str, reason: &str) -> Self;

    /// Whether it ends the present state of a gateway.
    fn is_synced(&self) -> bool {
        false
    }

    /// What ends the present state of all gateways.
    fn synced() -> Option<Self> {
        None
    }
}

/// Opens the stream of another gateway.
pub(super) type Open<E> =
    Box<dyn Fn(TunnelChannel) -> BoxFuture<'static, Result<Streaming<E>, Status>> + Send>;

/// What a gateway says.
enum Told<E> {
    Open,
    Event(E),
    Failed(String),
    End,
}

/// How a gateway is doing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Its first stream is being opened.
    First,
    Up,
    /// There is no tunnel to it. Next time it is down.
    Missing,
    Down,
}

struct Merged<E> {
    fleet: Fleet,
    own: Arc<str>,
    open: Open<E>,
    streams: StreamMap<Arc<str>, BoxStream<'static, Told<E>>>,
    /// The tunnels to the gateways whose streams are in `streams`.
    tunnels: HashMap<Arc<str>, TunnelId>,
    seen: HashMap<Arc<str>, Seen>,
    /// The tunnels to gateways that are drained. Their streams would end at once.
    drained: HashSet<TunnelId>,
    /// The gateways whose present state is not sent yet. `None`: it has been said that all are.
    unsynced: Option<HashSet<Arc<str>>>,
    ready: VecDeque<E>,
    looks: Interval,
}

/// The events of this gateway, which are `own`, and of all others.
pub(super) fn merged<E: Event>(
    fleet: &Fleet,
    own: impl Stream<Item = Result<E, Status>> + Send + 'static,
    open: Open<E>,
) -> impl Stream<Item = Result<E, Status>> + Send + 'static {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first look is made below.
    looks.reset();
    let name: Arc<str> = fleet.name().into();
    let mut merged = Merged {
        fleet: fleet.clone(),
        own: name.clone(),
        open,
        streams: StreamMap::new(),
        tunnels: HashMap::new(),
        seen: HashMap::new(),
        drained: HashSet::new(),
        unsynced: Some(HashSet::from([name.clone()])),
        ready: VecDeque::new(),
        looks,
    };
    let own = own.map(told).chain(stream::iter([Told::End]));
    merged.streams.insert(name, own.boxed());
    merged.look(true);
    stream::unfold(merged, |mut merged| async move {
        let event = merged.next().await?;
        Some((Ok(event), merged))
    })
}

fn told<E>(event: Result<E, Status>) -> Told<E> {
    event.map_or_else(
        |status| Told::Failed(status.message().to_owned()),
        Told::Event,
    )
}

/// The stream of another gateway, from its opening on.
fn follow<E: Event>(
    opening: BoxFuture<'static, Result<Streaming<E>, Status>>,
) -> BoxStream<'static, Told<E>> {
    let opened = async move {
        let failed = |reason: &str| stream::iter([Told::Failed(reason.to_owned())]).boxed();
        match timeout(PATIENCE, opening).await {
            Ok(Ok(events)) => {
                let events = events.map(told).chain(stream::iter([Told::End]));
                stream::iter([Told::Open]).chain(events).boxed()
            }
            Ok(Err(status)) => failed(status.message()),
            Err(_) => failed(SILENT),
        }
    };
    stream::once(opened).flatten().boxed()
}

impl<E: Event> Merged<E> {
    async fn next(&mut self) -> Option<E> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            tokio::select! {
                told = self.streams.next() => {
                    let (gateway, told) = told?;
                    self.hear(&gateway, told)?;
                }
                _ = self.looks.tick() => self.look(false),
            }
        }
    }

    /// Takes what a gateway says. `None`: this gateway says no more.
    fn hear(&mut self, gateway: &Arc<str>, told: Told<E>) -> Option<()> {
        match told {
            Told::Open => {
                if self.seen.insert(gateway.clone(), Seen::Up) != Some(Seen::First) {
                    self.ready.push_back(E::up(gateway));
                }
            }
            Told::Event(event) if event.is_synced() => self.synced(gateway),
            Told::Event(event) => self.ready.push_back(event.at(gateway)),
            Told::Failed(_) | Told::End if *gateway == self.own => return None,
            Told::Failed(reason) => self.lost(gateway, &reason),
            Told::End => {
                self.drained.extend(self.tunnels.get(gateway));
                self.lost(gateway, "it is drained");
            }
        }
        Some(())
    }

    /// The present state of a gateway was sent, or will not be.
    fn synced(&mut self, gateway: &str) {
        let Some(unsynced) = &mut self.unsynced else {
            return;
        };
        unsynced.remove(gateway);
        if unsynced.is_empty() {
            self.unsynced = None;
            self.ready.extend(E::synced());
        }
    }

    fn lost(&mut self, gateway: &Arc<str>, reason: &str) {
        self.streams.remove(gateway);
        self.tunnels.remove(gateway);
        if self.seen.insert(gateway.clone(), Seen::Down) != Some(Seen::Down) {
            self.ready.push_back(E::down(gateway, reason));
        }
        self.synced(gateway);
    }

    /// Adds the gateways that have come, and gives up those that do not answer.
    fn look(&mut self, is_first: bool) {
        for (gateway, tunnel) in reachable(&self.fleet) {
            let id = tunnel.info().id();
            if self.streams.contains_key(&gateway) || self.drained.contains(&id) {
                continue;
            }
            if is_first {
                self.seen.insert(gateway.clone(), Seen::First);
                self.unsynced.iter_mut().for_each(|unsynced| {
                    unsynced.insert(gateway.clone());
                });
            }
            self.tunnels.insert(gateway.clone(), id);
            self.streams
                .insert(gateway.clone(), follow((self.open)(tunnel)));
        }
        for gateway in silent(&self.fleet) {
            match self.seen.get(&gateway) {
                Some(Seen::Down) => {}
                // A gateway that has just come has no tunnel yet.
                None if !is_first => drop(self.seen.insert(gateway, Seen::Missing)),
                _ => self.lost(&gateway, SILENT),
            }
        }
    }
}

impl Event for api::WatchEvent {
    fn at(self, gateway: &str) -> Self {
        use watch_event::Event::{Opened, Present};
        let event = match self.event {
            Some(Present(device)) => Some(Present(merge::at(device, gateway))),
            Some(Opened(mut opened)) => {
                if let Some(tunnel) = &mut opened.tunnel {
                    gateway.clone_into(&mut tunnel.gateway);
                }
                Some(Opened(opened))
            }
            event => event,
        };
        Self {
            gateway: gateway.to_owned(),
            event,
            ..self
        }
    }

    fn up(gateway: &str) -> Self {
        watched(gateway, watch_event::Event::GatewayUp(api::GatewayUp {}))
    }

    fn down(gateway: &str, reason: &str) -> Self {
        let reason = reason.to_owned();
        let down = watch_event::Event::GatewayDown(api::GatewayDown { reason });
        watched(gateway, down)
    }

    fn is_synced(&self) -> bool {
        matches!(self.event, Some(watch_event::Event::Synced(_)))
    }

    fn synced() -> Option<Self> {
        Some(watched("", watch_event::Event::Synced(api::Synced {})))
    }
}

fn watched(gateway: &str, event: watch_event::Event) -> api::WatchEvent {
    api::WatchEvent {
        at: Some(SystemTime::now().into()),
        gateway: gateway.to_owned(),
        event: Some(event),
        ..api::WatchEvent::default()
    }
}

impl Event for api::TapEvent {
    fn at(self, gateway: &str) -> Self {
        Self {
            gateway: gateway.to_owned(),
            ..self
        }
    }

    fn up(gateway: &str) -> Self {
        tapped(gateway, tap_event::Event::GatewayUp(api::GatewayUp {}))
    }

    fn down(gateway: &str, reason: &str) -> Self {
        let reason = reason.to_owned();
        let down = tap_event::Event::GatewayDown(api::GatewayDown { reason });
        tapped(gateway, down)
    }
}

fn tapped(gateway: &str, event: tap_event::Event) -> api::TapEvent {
    api::TapEvent {
        at: Some(SystemTime::now().into()),
        gateway: gateway.to_owned(),
        event: Some(event),
        ..api::TapEvent::default()
    }
}
