//! One tunnel's state: the state machine, and the wakers of those who wait for it.
//!
//! One mutex guards both. The rule that keeps it harmless: **no user code runs under the
//! lock** — no poll, no drop, no wake, no callback. A locked operation returns the wakers it
//! owes ([`Actions`]), and [`Shared::with`] wakes them after the lock is gone.
//!
//! A unary call takes the lock seven times, both ends together and the tunnel's own tasks apart:
//! to open and look for the response, to find its headers, its body and its end, to let go; to
//! read the request, to let go of it, to answer and let go. Letting go by itself owes nothing and
//! so costs some 100 instructions instead of 400. With two locks more, and wakers in vectors, what
//! is owed took 2,300 instructions of each call to find; now it takes 900.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tunnel_core::{
    Config, Connection, ConnectionError, EndReason, Event, Metadata, Offer, RecvStream, Released,
    Side, Stats, StreamError, StreamId, StreamIdHash, TransportCause,
};

use crate::MemoryBudget;
use crate::budget::Member;
use crate::info::TunnelInfo;
pub(crate) use crate::life::Life;
use crate::waiting::{Turn, WaitQueue};

/// The time by the runtime's clock: the one that its timers go by, also where a test has
/// paused it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// One call, as far as the binding keeps something for it. Stays until its last holder (a
/// future, a body, a task) lets go of it.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Handler: why the call is over, if it ended otherwise than by its own close. Caller: the
    /// local failure of its request body.
    pub(crate) failed: Option<Box<Failure>>,
    /// Handler: nobody serves the call any more, so nothing comes that was not there yet.
    pub(crate) unserved: bool,
    holders: u8,
    /// The last turn of [`Awake`] in which this call's task became ready.
    turn: u32,
}

/// How many of the tasks that the driver has made ready are still at work. The transport's writer
/// waits for them once.
#[derive(Debug, Default)]
struct Awake {
    turn: u32,
    count: usize,
}

impl Awake {
    /// The driver reads: those who became ready before do not count any more.
    fn begin(&mut self) {
        self.turn = self.turn.wrapping_add(1).max(1);
        self.count = 0;
    }

    /// A call's task became ready.
    fn add(&mut self, slot: &mut Slot) {
        if std::mem::replace(&mut slot.turn, self.turn) != self.turn {
            self.count += 1;
        }
    }

    /// A call's task waits, or is done.
    fn remove(&mut self, slot: &mut Slot) {
        if std::mem::take(&mut slot.turn) == self.turn {
            self.count = self.count.saturating_sub(1);
        }
    }
}

/// How a call failed at this end.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The state machine says so.
    Stream(StreamError),
    /// The local request body says so.
    Body(tonic::Status),
}

impl Failure {
    pub(crate) fn into_status(self) -> tonic::Status {
        match self {
            Self::Stream(error) => crate::status::from_stream_error(error),
            Self::Body(status) => status,
        }
    }
}

/// A call that has come, for the driver to serve.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) id: StreamId,
    pub(crate) method: String,
    pub(crate) headers: Metadata,
    pub(crate) has_deadline: bool,
}

/// What is behind the lock.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) conn: Connection,
    slots: HashMap<StreamId, Slot, StreamIdHash>,
    /// Whether the peer takes text values that are not UTF-8.
    takes_opaque_text: bool,
    /// Caller: calls that wait for room.
    queue: WaitQueue,
    /// Calls that have come, for the driver to serve.
    opened: Vec<Opened>,
    /// Whether the driver is at work, and takes them without being woken.
    reading: bool,
    awake: Awake,
    outbound: Option<Waker>,
    /// How many bytes the transport has taken to be sent.
    pub(crate) bytes_taken: u64,
    /// Whether the transport's writer is left asleep for the moment.
    corked: bool,
    /// Network client: the transport let go of what this end sends. Why, the driver learns
    /// from what it receives.
    outbound_lost: bool,
    driver: Option<Waker>,
    /// When the driver will look at timers by itself, and whether it reads.
    driver_timeout: Option<Instant>,
    driver_paused: bool,
    /// Whether those who wait for the tunnel's life were told that it drains.
    told_draining: bool,
    /// Wakers that were replaced: dropped after the lock is gone.
    replaced: Wakers,
    /// Wakers owed, to be woken after the lock is gone.
    owed: Wakers,
}

/// A lock owes one waker, or none; only the driver's owes more.
type Wakers = SmallVec<[Waker; 2]>;

/// What is owed when the lock is gone.
#[derive(Debug, Default)]
pub(crate) struct Actions {
    wake: Wakers,
    wake_outbound: Option<Waker>,
    wake_driver: Option<Waker>,
    replaced: Wakers,
    /// Buffers of the applications, to be dropped.
    released: Released,
    life: Option<Life>,
    /// Whether the tunnels of a budget hold more than it allows.
    over_budget: bool,
}

/// What came of reading.
pub(crate) struct ReadResult<T> {
    pub(crate) result: T,
    /// The calls that have come.
    pub(crate) opened: Vec<Opened>,
    /// Whether another task was woken.
    pub(crate) woke: bool,
}

/// What is called after the tunnel's life has changed.
type Observer = Box<dyn Fn() + Send + Sync>;

/// One tunnel.
pub(crate) struct Shared {
    state: Mutex<State>,
    life: watch::Sender<Life>,
    observer: OnceLock<Observer>,
    /// Its part of a budget that tunnels share.
    budget: OnceLock<Member>,
    /// Where the tunnel's task runs. Calls may be made from anywhere.
    runtime: OnceLock<Handle>,
    pub(crate) info: TunnelInfo,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("info", &self.info)
            .field("life", &self.life())
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(side: Side, config: Config, info: TunnelInfo) -> Arc<Self> {
        let mut conn = Connection::new(side, config);
        conn.keep_released();
        Arc::new(Self {
            state: Mutex::new(State {
                conn,
                slots: HashMap::default(),
                takes_opaque_text: false,
                queue: WaitQueue::default(),
                opened: Vec::new(),
                reading: false,
                awake: Awake::default(),
                outbound: None,
                bytes_taken: 0,
                corked: false,
                outbound_lost: false,
                driver: None,
                driver_timeout: None,
                driver_paused: false,
                told_draining: false,
                replaced: Wakers::new(),
                owed: Wakers::new(),
            }),
            life: watch::Sender::new(Life::Opening),
            observer: OnceLock::new(),
            budget: OnceLock::new(),
            runtime: OnceLock::new(),
            info,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock but this crate and the state machine; if
        // one of them did, the state is still the best there is.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the state, then calls the wakers that follow from it.
    pub(crate) fn with<T>(&self, operation: impl FnOnce(&mut State) -> T) -> T {
        let mut actions = Actions::default();
        let result = {
            let mut state = self.lock();
            let result = operation(&mut state);
            state.settle(&mut actions);
            self.report_memory(&state, &mut actions);
            result
        };
        self.act(&mut actions);
        result
    }

    /// The same for the driver, which has read something: also returns the calls that have come,
    /// without waking it for them.
    pub(crate) fn with_read<T>(&self, operation: impl FnOnce(&mut State) -> T) -> ReadResult<T> {
        let mut actions = Actions::default();
        let (result, opened) = {
            let mut state = self.lock();
            state.awake.begin();
            state.reading = true;
            let result = operation(&mut state);
            state.settle(&mut actions);
            self.report_memory(&state, &mut actions);
            state.reading = false;
            (result, std::mem::take(&mut state.opened))
        };
        let woke = !actions.wake.is_empty() || actions.wake_outbound.is_some();
        self.act(&mut actions);
        ReadResult {
            result,
            opened,
            woke,
        }
    }

    /// Leaves the transport's writer asleep until the cork is dropped, so that what comes up
    /// meanwhile leaves together.
    pub(crate) fn cork(&self) -> Cork<'_> {
        self.lock().corked = true;
        Cork(self)
    }

    /// Lets go of a call. The state machine has no part in it, so nothing is owed.
    pub(crate) fn release(&self, id: StreamId) {
        let slot = self.lock().release(id);
        // Without the lock.
        drop(slot);
    }

    fn act(&self, actions: &mut Actions) {
        if let Some(life) = actions.life.take() {
            self.set_life(life);
        }
        for waker in actions.wake.drain(..) {
            waker.wake();
        }
        if let Some(waker) = actions.wake_outbound.take() {
            waker.wake();
        }
        if let Some(waker) = actions.wake_driver.take() {
            waker.wake();
        }
        if actions.over_budget
            && let Some(member) = self.budget.get()
        {
            member.shed();
        }
        // `replaced` and `released` are dropped with the actions.
    }

    /// Counts what this tunnel holds against a budget. Only the first one given counts.
    pub(crate) fn join_budget(self: &Arc<Self>, budget: &MemoryBudget) {
        self.budget.get_or_init(|| budget.join(self));
    }

    fn report_memory(&self, state: &State, actions: &mut Actions) {
        if let Some(member) = self.budget.get() {
            actions.over_budget = member.report(state.conn.memory());
        }
    }

    /// Moves on, never back, and has the observer look.
    fn set_life(&self, next: Life) {
        let moved = self.life.send_if_modified(|life| {
            let forward = next.rank() > life.rank();
            if forward {
                *life = next;
            }
            forward
        });
        if moved && let Some(observer) = self.observer.get() {
            observer();
        }
    }

    /// Has a function called, without the lock, after each change of the tunnel's life. Only the
    /// first one given counts.
    pub(crate) fn observe(&self, observer: Observer) {
        // A second one is dropped, as documented.
        let _ = self.observer.set(observer);
    }

    /// The outer stream has ended, and with it everything.
    pub(crate) fn set_gone(&self) {
        // Not as `life` has it: whoever ended the tunnel may not have said so yet.
        let reason = self.end_reason();
        self.set_life(Life::Gone(reason.unwrap_or(EndReason::PeerClosed)));
    }

    /// The runtime of a tunnel that was started.
    pub(crate) fn runtime(&self) -> Option<&Handle> {
        self.runtime.get()
    }

    pub(crate) fn set_runtime(&self, runtime: Handle) {
        self.runtime.get_or_init(|| runtime);
    }

    pub(crate) fn life(&self) -> Life {
        self.life.borrow().clone()
    }

    /// How the tunnel ended, if it has.
    pub(crate) fn end_reason(&self) -> Option<EndReason> {
        self.lock().conn.end_reason().cloned()
    }

    /// For how long calls have waited without anything being heard from the peer.
    pub(crate) fn unanswered_for(&self) -> Option<Duration> {
        let since = self.lock().conn.unanswered_since()?;
        Some(now().saturating_duration_since(since))
    }

    /// Whether a call could be opened now, but for the limits.
    pub(crate) fn takes_calls(&self) -> bool {
        self.lock().takes_calls()
    }

    /// Waits until the tunnel's life is what is asked for.
    pub(crate) async fn wait_life(&self, mut wanted: impl FnMut(&Life) -> bool) -> Life {
        let mut life = self.life.subscribe();
        match life.wait_for(|l| wanted(l)).await {
            Ok(life) => life.clone(),
            // Cannot happen: the sender is borrowed here.
            Err(_) => self.life(),
        }
    }

    /// How many bytes the transport has taken to be sent.
    pub(crate) fn outer_bytes_sent(&self) -> u64 {
        self.lock().bytes_taken
    }

    pub(crate) fn stats(&self) -> Stats {
        self.lock().conn.stats()
    }

    /// How many calls the binding keeps something for.
    pub(crate) fn slots(&self) -> usize {
        self.lock().slots.len()
    }
}

/// From [`Shared::cork`].
pub(crate) struct Cork<'a>(&'a Shared);

impl Drop for Cork<'_> {
    fn drop(&mut self) {
        self.0.with(|state| state.corked = false);
    }
}

impl State {
    /// Drains the state machine's events into what is owed.
    fn settle(&mut self, actions: &mut Actions) {
        while let Some(event) = self.conn.poll_event() {
            self.on_event(event, actions);
        }
        if self.queue.is_waiting() {
            self.give_turns();
        }
        if !self.owed.is_empty() {
            actions.wake = std::mem::take(&mut self.owed);
        }
        if !self.replaced.is_empty() {
            actions.replaced = std::mem::take(&mut self.replaced);
        }
        if self.conn.has_released() {
            actions.released = self.conn.take_released();
        }
        if self.conn.is_draining() && !self.told_draining && self.conn.is_ready() {
            self.told_draining = true;
            actions.life = Some(Life::Draining);
        }
        if self.outbound.is_some()
            && !self.corked
            && (self.conn.wants_transmit() || self.conn.end_reason().is_some())
        {
            actions.wake_outbound = self.outbound.take();
        }
        if self.driver.is_some() && self.driver_is_needed() {
            actions.wake_driver = self.driver.take();
        }
    }

    /// The outer call is open.
    pub(crate) fn start(&mut self, now: Instant, peer: Offer) {
        self.takes_opaque_text = peer.opaque_text;
        self.conn.start(now, peer);
    }

    /// Metadata as the peer takes it.
    pub(crate) fn for_peer(&self, md: Metadata) -> Metadata {
        match self.takes_opaque_text {
            true => md,
            false => crate::headers::without_opaque(md),
        }
    }

    fn takes_calls(&self) -> bool {
        self.conn.is_ready() && !self.conn.is_draining()
    }

    /// Caller: whether a new call has to wait for room.
    pub(crate) fn is_full(&self) -> bool {
        self.conn.room() <= self.queue.kept() && self.takes_calls()
    }

    /// Puts a call at the end of the queue for room; returns its ticket.
    pub(crate) fn join_queue(&mut self, waker: &Waker, deadline: Option<Instant>) -> u64 {
        self.queue.join(waker.clone(), deadline)
    }

    /// Whether a call may leave the queue and open now.
    pub(crate) fn poll_queue(
        &mut self,
        ticket: u64,
        waker: &Waker,
        deadline: Option<Instant>,
    ) -> Turn {
        let (turn, replaced) = self.queue.poll(ticket, waker);
        owe(replaced, &mut self.replaced);
        // The limit may have become stricter since the call was woken.
        if turn == Turn::Now && self.is_full() {
            self.queue.put_back(ticket, waker.clone(), deadline);
            return Turn::Later;
        }
        turn
    }

    /// A call leaves the queue without having opened.
    pub(crate) fn leave_queue(&mut self, ticket: u64) {
        let waker = self.queue.leave(ticket);
        owe(waker, &mut self.replaced);
    }

    /// Wakes as many waiting calls as there is room for; all of them when they will be refused.
    fn give_turns(&mut self) {
        let room = match self.takes_calls() {
            true => self.conn.room(),
            false => usize::MAX,
        };
        while let Some(waker) = self.queue.next_turn(room) {
            self.owed.push(waker);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let timers = [self.conn.poll_timeout(), self.queue.next_deadline()];
        timers.into_iter().flatten().min()
    }

    /// Lets everything that is due happen.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.conn.handle_timeout(now);
        while let Some(waker) = self.queue.next_expired(now) {
            self.owed.push(waker);
        }
    }

    fn driver_is_needed(&self) -> bool {
        let timer = match (self.poll_timeout(), self.driver_timeout) {
            (Some(due), Some(armed)) => due < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let resume = self.driver_paused && self.conn.wants_input();
        let serve = !self.reading && !self.opened.is_empty();
        timer || resume || serve || self.outbound_lost || self.conn.end_reason().is_some()
    }

    fn on_event(&mut self, event: Event, actions: &mut Actions) {
        match event {
            Event::Readable(id) => self.wake_reader(id),
            Event::Writable(id) => {
                if let Some(slot) = self.slots.get_mut(&id) {
                    owe(slot.writer.take(), &mut self.owed);
                }
            }
            Event::Opened {
                id,
                method,
                headers,
                deadline,
            } => {
                // Held from now on by the task that serves it and by its request body.
                self.hold(id, 2);
                if let Some(slot) = self.slots.get_mut(&id) {
                    self.awake.add(slot);
                }
                self.opened.push(Opened {
                    id,
                    method,
                    headers,
                    has_deadline: deadline.is_some(),
                });
            }
            Event::Cancelled { id, error } => self.on_cancelled(id, error),
            Event::Ready => actions.life = Some(Life::Ready),
            Event::Ended(reason) => actions.life = Some(Life::Ended(reason)),
            _ => {}
        }
    }

    fn on_cancelled(&mut self, id: StreamId, error: StreamError) {
        // Cancelled before its handler was made: there is nothing to be told or to wait for.
        if let Some(at) = self.opened.iter().rposition(|opened| opened.id == id) {
            self.opened.remove(at);
            if let Some(mut slot) = self.slots.remove(&id) {
                self.awake.remove(&mut slot);
            }
            self.conn.handler_done(id);
        } else if let Some(slot) = self.slots.get_mut(&id) {
            slot.failed = Some(Box::new(Failure::Stream(error)));
            owe(slot.reader.take(), &mut self.owed);
            owe(slot.writer.take(), &mut self.owed);
        }
    }

    /// Keeps something for a call, for a number of holders.
    pub(crate) fn hold(&mut self, id: StreamId, holders: u8) {
        self.slots.entry(id).or_default().holders += holders;
    }

    /// One holder lets go. The last one gets what was kept, to be dropped without the lock.
    #[must_use = "to be dropped without the lock"]
    pub(crate) fn release(&mut self, id: StreamId) -> Option<Slot> {
        let Entry::Occupied(mut slot) = self.slots.entry(id) else {
            return None;
        };
        let holders = slot.get().holders.saturating_sub(1);
        slot.get_mut().holders = holders;
        if holders > 0 {
            return None;
        }
        let mut slot = slot.remove();
        self.awake.remove(&mut slot);
        Some(slot)
    }

    /// Handler: a call's handler is gone, and lets go of the call. Tells the call's request body,
    /// which may live on.
    #[must_use = "to be dropped without the lock"]
    pub(crate) fn leave(&mut self, id: StreamId) -> Option<Slot> {
        let slot = self.slots.get_mut(&id)?;
        slot.unserved = true;
        self.awake.remove(slot);
        owe(slot.reader.take(), &mut self.owed);
        self.conn.handler_done(id);
        self.release(id)
    }

    pub(crate) fn slot(&mut self, id: StreamId) -> Option<&mut Slot> {
        self.slots.get_mut(&id)
    }

    /// A stream, for its reader.
    pub(crate) fn recv(&mut self, id: StreamId) -> RecvStream<'_> {
        self.conn.recv(id)
    }

    /// Has the reader of a stream look again.
    pub(crate) fn wake_reader(&mut self, id: StreamId) {
        if let Some(slot) = self.slots.get_mut(&id)
            && let Some(reader) = slot.reader.take()
        {
            self.owed.push(reader);
            self.awake.add(slot);
        }
    }

    /// Registers who is to be woken when a stream can be read.
    pub(crate) fn wait_read(&mut self, id: StreamId, waker: &Waker) {
        if let Some(slot) = self.slots.get_mut(&id) {
            self.awake.remove(slot);
            register(&mut slot.reader, waker, &mut self.replaced);
        }
    }

    /// Registers who is to be woken when a stream can be written or has died.
    pub(crate) fn wait_write(&mut self, id: StreamId, waker: &Waker) {
        if let Some(slot) = self.slots.get_mut(&id) {
            register(&mut slot.writer, waker, &mut self.replaced);
        }
    }

    /// Whether tasks that the driver has made ready are still at work.
    pub(crate) fn is_more_coming(&self) -> bool {
        self.awake.count > 0
    }

    /// Registers the transport's writer.
    pub(crate) fn wait_outbound(&mut self, waker: &Waker) {
        register(&mut self.outbound, waker, &mut self.replaced);
    }

    /// The transport has let go of what this end sends. With `ask_driver`, the driver is to find
    /// out why, also where there is none yet: the far end may answer and end in one breath.
    pub(crate) fn lose_outbound(&mut self, ask_driver: bool) {
        if ask_driver {
            self.outbound_lost = true;
        } else {
            self.conn.handle_lost(outbound_dropped());
        }
    }

    pub(crate) fn outbound_is_lost(&self) -> bool {
        self.outbound_lost
    }

    /// Registers the driver, and what it will notice by itself.
    pub(crate) fn wait_driver(&mut self, waker: &Waker, timeout: Option<Instant>, paused: bool) {
        register(&mut self.driver, waker, &mut self.replaced);
        self.driver_timeout = timeout;
        self.driver_paused = paused;
    }
}

/// The end of a tunnel whose transport let go of what it sends, and did not say why.
pub(crate) fn outbound_dropped() -> ConnectionError {
    ConnectionError::TransportLost(TransportCause::StreamDropped.into())
}

fn register(place: &mut Option<Waker>, waker: &Waker, replaced: &mut Wakers) {
    if place.as_ref().is_some_and(|old| old.will_wake(waker)) {
        return;
    }
    owe(place.replace(waker.clone()), replaced);
}

fn owe(waker: Option<Waker>, to: &mut Wakers) {
    if let Some(waker) = waker {
        to.push(waker);
    }
}
