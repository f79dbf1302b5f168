//! Taps: operators who see calls as they happen. Calls that nobody taps cost an atomic load.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use tokio::sync::broadcast;

/// How many events a reader may be behind.
const BACKLOG: usize = 1024;

/// The most that is kept of the messages of a direction, in bytes.
pub(crate) const MAX_BODY: usize = 64 << 10;

/// Which keys somebody taps.
pub(crate) type Matches = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// All taps.
#[derive(Debug)]
pub(crate) struct Taps {
    any: AtomicBool,
    numbers: AtomicU64,
    readers: Mutex<Readers>,
    events: broadcast::Sender<Arc<Event>>,
}

#[derive(Default)]
struct Readers {
    next: u64,
    readers: Vec<Reader>,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readers")
            .field("len", &self.readers.len())
            .finish_non_exhaustive()
    }
}

struct Reader {
    number: u64,
    matches: Matches,
    body: usize,
}

/// What has happened.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) at: SystemTime,
    pub(crate) call: Call,
    /// `None`: the call has begun.
    pub(crate) ended: Option<Ended>,
}

/// A call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) number: u64,
    pub(crate) key: Option<Arc<str>>,
    pub(crate) method: String,
    pub(crate) who: Option<Arc<str>>,
    pub(crate) peer: Option<String>,
}

/// How a call has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: &'static str,
    pub(crate) message: String,
    pub(crate) duration: Duration,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) request: Bytes,
    pub(crate) response: Bytes,
}

impl Default for Taps {
    fn default() -> Self {
        Self {
            any: AtomicBool::new(false),
            numbers: AtomicU64::new(0),
            readers: Mutex::default(),
            events: broadcast::Sender::new(BACKLOG),
        }
    }
}

impl Taps {
    fn lock(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to tap, with at most this number of bytes of each direction.
    pub(crate) fn tap(self: &Arc<Self>, matches: Matches, body: usize) -> Tap {
        let mut readers = self.lock();
        let number = readers.next;
        readers.next += 1;
        readers.readers.push(Reader {
            number,
            matches,
            body: body.min(MAX_BODY),
        });
        self.any.store(true, Ordering::Release);
        Tap {
            events: self.events.subscribe(),
            number,
            taps: self.clone(),
        }
    }

    /// How much is to be kept of the messages of a call of this key; `None` if nobody taps it.
    pub(crate) fn wanted(&self, key: Option<&str>) -> Option<usize> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let readers = self.lock();
        let matching = readers
            .readers
            .iter()
            .filter(|reader| (reader.matches)(key.unwrap_or_default()));
        matching.map(|reader| reader.body).max()
    }

    /// A number for a call.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells the readers.
    pub(crate) fn tell(&self, call: Call, ended: Option<Ended>) {
        let at = SystemTime::now();
        // Fails only without readers.
        let _ = self.events.send(Arc::new(Event { at, call, ended }));
    }
}

/// A reader of calls. It stops to tap when it is dropped.
pub(crate) struct Tap {
    events: broadcast::Receiver<Arc<Event>>,
    number: u64,
    taps: Arc<Taps>,
}

impl Tap {
    /// The next event, or how many were missed. `None`: there are no more.
    pub(crate) async fn next(&mut self) -> Option<Result<Arc<Event>, u64>> {
        match self.events.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Err(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let mut readers = self.taps.lock();
        readers
            .readers
            .retain(|reader| reader.number != self.number);
        self.taps
            .any
            .store(!readers.readers.is_empty(), Ordering::Release);
    }
}

/// The first bytes of a direction. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    bytes: Arc<Mutex<BytesMut>>,
    max: usize,
}

impl Kept {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            bytes: Arc::default(),
            max,
        }
    }

    /// Adds what fits.
    pub(crate) fn add(&self, data: &[u8]) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.max.saturating_sub(bytes.len());
        bytes.extend_from_slice(&data[..room.min(data.len())]);
    }

    /// What was kept.
    pub(crate) fn take(&self) -> Bytes {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *bytes).freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_somebody_taps_is_wanted_and_as_much_as_the_most_curious_wants() {
        let taps = Arc::new(Taps::default());
        assert_eq!(taps.wanted(Some("a")), None);
        let all = taps.tap(Box::new(|_| true), 0);
        let a = taps.tap(Box::new(|key| key == "a"), usize::MAX);
        assert_eq!(taps.wanted(Some("a")), Some(MAX_BODY));
        assert_eq!(taps.wanted(None), Some(0));
        drop(a);
        assert_eq!(taps.wanted(Some("a")), Some(0));
        drop(all);
        assert_eq!(taps.wanted(Some("a")), None);
    }

    #[test]
    fn of_a_direction_the_first_bytes_are_kept() {
        let kept = Kept::new(5);
        for data in ["abc", "def", "g"] {
            kept.add(data.as_bytes());
        }
        assert_eq!(kept.take(), "abcde");
    }
}
