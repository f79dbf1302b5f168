//! The tasks that wait for streams.

use std::collections::HashMap;
use std::task::Waker;

use crate::{Event, StreamId, StreamIdHash};

/// The tasks that wait for streams, and for the tunnel itself.
///
/// A runtime keeps it beside its [`Connection`](crate::Connection), behind the same lock, and lets
/// tasks work on the connection directly. A task that finds nothing to do registers its waker and
/// returns `Poll::Pending`. The code that drains the events passes each to
/// [`on_event`](Self::on_event), and wakes the tasks of [`take_ready`](Self::take_ready) after
/// unlocking.
///
/// A stream has at most one waiting reader and one waiting writer: a later waker replaces an
/// earlier one. A woken task checks again and may find nothing.
///
/// ```
/// use std::sync::Mutex;
/// use std::task::{Context, Poll};
/// use bytes::Bytes;
/// use tunnel_core::{Connection, Read, StreamId, Waiters};
///
/// struct State {
///     conn: Connection,
///     waiters: Waiters,
/// }
///
/// /// The next message or the end of a stream, for a future.
/// fn poll_message(state: &Mutex<State>, id: StreamId, cx: &mut Context<'_>) -> Poll<Read<Bytes>> {
///     let state = &mut *state.lock().expect("no panic under the lock");
///     match state.conn.recv_stream(id).message() {
///         Read::Pending => {
///             state.waiters.wait_readable(id, cx.waker());
///             Poll::Pending
///         }
///         read => Poll::Ready(read),
///     }
/// }
///
/// /// To be called after each input and operation.
/// fn settle(state: &Mutex<State>) {
///     let ready = {
///         let state = &mut *state.lock().expect("no panic under the lock");
///         while let Some(event) = state.conn.poll_event() {
///             state.waiters.on_event(&event);
///         }
///         state.waiters.take_ready()
///     };
///     ready.into_iter().for_each(|waker| waker.wake());
/// }
/// # let _ = (poll_message, settle);
/// ```
#[derive(Debug, Default)]
pub struct Waiters {
    streams: HashMap<StreamId, Waiting, StreamIdHash>,
    tunnel: Vec<Waker>,
    ready: Vec<Waker>,
}

#[derive(Debug, Default)]
struct Waiting {
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Waiters {
    /// A set without waiting tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers the reader of a stream, after a read returned
    /// [`Read::Pending`](crate::Read::Pending).
    pub fn wait_readable(&mut self, id: StreamId, waker: &Waker) {
        register(&mut self.streams.entry(id).or_default().reader, waker);
    }

    /// Registers the writer of a stream, after
    /// [`is_writable`](crate::SendStream::is_writable) returned `Ok(false)`.
    pub fn wait_writable(&mut self, id: StreamId, waker: &Waker) {
        register(&mut self.streams.entry(id).or_default().writer, waker);
    }

    /// Registers a task that waits for the tunnel: to be ready, to receive a call, or to end. Any
    /// number of tasks may wait.
    pub fn wait_tunnel(&mut self, waker: &Waker) {
        if !self.tunnel.iter().any(|other| other.will_wake(waker)) {
            self.tunnel.push(waker.clone());
        }
    }

    /// Marks the tasks that an event concerns as ready.
    pub fn on_event(&mut self, event: &Event) {
        match event {
            Event::Readable(id) => {
                let waiting = self.streams.get_mut(id);
                self.ready.extend(waiting.and_then(|w| w.reader.take()));
            }
            Event::Writable(id) => {
                let waiting = self.streams.get_mut(id);
                self.ready.extend(waiting.and_then(|w| w.writer.take()));
            }
            Event::Cancelled { id, .. } => self.forget(*id),
            Event::Ready | Event::PeerReady | Event::Opened { .. } | Event::GoingAway { .. } => {
                self.wake_tunnel();
            }
            Event::Ended(_) => {
                self.wake_tunnel();
                let streams = self.streams.drain();
                self.ready
                    .extend(streams.flat_map(|(_, w)| [w.reader, w.writer]).flatten());
            }
            Event::Note(_) | Event::Notice(_) => {}
        }
    }

    /// Marks the tasks that wait for the tunnel as ready, after a change that no event announces.
    pub fn wake_tunnel(&mut self) {
        self.ready.append(&mut self.tunnel);
    }

    /// Removes a stream whose user has gone. Tasks that still wait for it are marked as ready.
    pub fn forget(&mut self, id: StreamId) {
        if let Some(waiting) = self.streams.remove(&id) {
            self.ready.extend(waiting.reader);
            self.ready.extend(waiting.writer);
        }
    }

    /// The tasks to wake. Wake them without holding a lock: a waker may run any code.
    #[must_use = "tasks that are not woken wait for ever"]
    pub fn take_ready(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.ready)
    }
}

fn register(place: &mut Option<Waker>, waker: &Waker) {
    match place {
        Some(old) => old.clone_from(waker),
        None => *place = Some(waker.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::task::Wake;

    use super::*;
    use crate::{Code, EndReason, Initiator, StreamError};

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// A task and its waker.
    fn task() -> (Arc<Task>, Waker) {
        let task = Arc::<Task>::default();
        (task.clone(), task.into())
    }

    fn wakes(waiters: &mut Waiters, event: &Event, task: &Task) -> usize {
        waiters.on_event(event);
        waiters.take_ready().into_iter().for_each(Waker::wake);
        task.0.swap(0, SeqCst)
    }

    #[test]
    fn readers_writers_and_tasks_of_the_tunnel_are_woken_separately() {
        let (id, other) = (StreamId(1), StreamId(2));
        let mut waiters = Waiters::new();
        let ((reader, r), (writer, w), (tunnel, t)) = (task(), task(), task());
        waiters.wait_readable(id, &r);
        waiters.wait_writable(id, &w);
        waiters.wait_tunnel(&t);
        waiters.wait_tunnel(&t);
        assert_eq!(wakes(&mut waiters, &Event::Readable(other), &reader), 0);
        assert_eq!(wakes(&mut waiters, &Event::Readable(id), &reader), 1);
        assert_eq!(
            wakes(&mut waiters, &Event::Readable(id), &reader),
            0,
            "once"
        );
        assert_eq!(wakes(&mut waiters, &Event::Writable(id), &writer), 1);
        assert_eq!(wakes(&mut waiters, &Event::Ready, &tunnel), 1);
        assert_eq!(wakes(&mut waiters, &Event::Ready, &tunnel), 0, "once");
    }

    #[test]
    fn a_later_waker_replaces_an_earlier_one() {
        let mut waiters = Waiters::new();
        let ((first, a), (second, b)) = (task(), task());
        waiters.wait_readable(StreamId(1), &a);
        waiters.wait_readable(StreamId(1), &b);
        assert_eq!(
            wakes(&mut waiters, &Event::Readable(StreamId(1)), &second),
            1
        );
        assert_eq!(first.0.load(SeqCst), 0);
    }

    #[test]
    fn ends_wake_both_halves_and_leave_nothing_behind() {
        let error = StreamError::new(Code::Cancelled, "cancelled", Initiator::Remote);
        let id = StreamId(1);
        let cancelled = Event::Cancelled { id, error };
        for end in [cancelled, Event::Ended(EndReason::Closed)] {
            let mut waiters = Waiters::new();
            let (task, waker) = task();
            waiters.wait_readable(id, &waker);
            waiters.wait_writable(id, &waker);
            assert_eq!(wakes(&mut waiters, &end, &task), 2);
            assert!(waiters.streams.is_empty());
        }
    }
}
