//! A request body that can be read again, for a call that is retried on another tunnel.
//!
//! The part that was read is kept, up to a limit, until the response begins. Invariants: one reader at a
//! time has the body itself, and polls it without the lock; everything that was read is kept, or
//! `lost` is set; only the latest reader can set `lost`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

/// The cost of a kept piece beyond its bytes.
const OVERHEAD: usize = size_of::<Bytes>();

/// A request body that can be given out several times.
pub(crate) struct Replay {
    shared: Arc<Mutex<Recording>>,
}

/// Whether a body that was taken back can be given out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakenBack {
    /// Yes: everything that was read is kept.
    Whole,
    /// No: more was read than was kept.
    Lost,
    /// No: the body itself has failed, which ends the call.
    Failed,
}

struct Recording {
    /// The body, while no reader has it.
    source: Option<Body>,
    /// How the body ended, if it has.
    end: Option<Result<(), Status>>,
    kept: VecDeque<Bytes>,
    kept_bytes: usize,
    limit: usize,
    /// Whether pieces are still kept.
    keeping: bool,
    /// Whether data was read that is not kept.
    lost: bool,
    /// The number of the latest reader, and the number of kept pieces that it has read. While the
    /// body is taken back, no reader has this number.
    reader: u64,
    read: usize,
    /// The latest reader, if it waits for an earlier one to give the body back.
    waiting: Option<Waker>,
}

/// A reader of the body from its beginning.
struct Reader {
    shared: Arc<Mutex<Recording>>,
    number: u64,
    source: Option<Body>,
}

fn lock(shared: &Mutex<Recording>) -> MutexGuard<'_, Recording> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Replay {
    /// Keeps pieces of a body as long as less than `limit` bytes are kept.
    pub(crate) fn new(body: Body, limit: usize) -> Self {
        Self {
            shared: Arc::new(Mutex::new(Recording {
                source: Some(body),
                end: None,
                kept: VecDeque::new(),
                kept_bytes: 0,
                limit,
                keeping: true,
                lost: false,
                reader: 0,
                read: 0,
                waiting: None,
            })),
        }
    }

    /// The body from its beginning: the first time, or after it was taken back whole.
    pub(crate) fn body(&self) -> Body {
        let mut recording = lock(&self.shared);
        recording.reader += 1;
        recording.read = 0;
        Body::new(Reader {
            shared: self.shared.clone(),
            number: recording.reader,
            source: None,
        })
    }

    /// Takes the body back from the last reader, and says whether it can be given out again. Both happen
    /// in one step, so that the reader cannot lose a piece in between.
    pub(crate) fn take_back(&self) -> TakenBack {
        let mut recording = lock(&self.shared);
        recording.reader += 1;
        match &recording.end {
            Some(Err(_)) => TakenBack::Failed,
            _ if recording.lost => TakenBack::Lost,
            _ => TakenBack::Whole,
        }
    }

    /// Stops keeping pieces, because the call will not be retried.
    pub(crate) fn commit(&self) {
        let read = lock(&self.shared).commit();
        drop(read);
    }
}

impl Recording {
    /// Returns the pieces that are no longer kept. They must be dropped without the lock.
    fn commit(&mut self) -> VecDeque<Bytes> {
        self.keeping = false;
        self.lost = true;
        let read = std::mem::take(&mut self.read);
        let unread = self.kept.split_off(read);
        std::mem::replace(&mut self.kept, unread)
    }

    /// The next kept piece for the latest reader.
    fn next_kept(&mut self) -> Option<Bytes> {
        if self.keeping {
            let piece = self.kept.get(self.read).cloned()?;
            self.read += 1;
            return Some(piece);
        }
        let piece = self.kept.pop_front();
        if self.kept.is_empty() {
            // Frees the memory of the queue, because the call may last long.
            self.kept = VecDeque::new();
        }
        piece
    }

    /// Notes a piece that a reader has read. Returns the pieces that are no longer kept. They must be
    /// dropped without the lock.
    fn on_piece(&mut self, reader: u64, piece: &Bytes) -> VecDeque<Bytes> {
        let is_latest = reader == self.reader;
        // An earlier reader may still be in a poll. Its piece is for the latest reader.
        if !is_latest || (self.keeping && self.kept_bytes < self.limit) {
            self.kept_bytes += piece.len() + OVERHEAD;
            self.kept.push_back(piece.clone());
            self.read += usize::from(is_latest);
            return VecDeque::new();
        }
        // The latest reader has read all kept pieces, because it reads them first.
        self.commit()
    }

    /// Notes the end of the body. Returns the waker of the reader that waits for it.
    fn on_end(&mut self, end: Result<(), Status>) -> Option<Waker> {
        self.end = Some(end);
        self.waiting.take()
    }
}

/// The result of a reader's look at the shared state, before it polls the body itself.
enum Found {
    Piece(Bytes),
    End(Result<(), Status>),
    /// The body, unless the reader has it already.
    Source(Option<Body>),
    /// Another reader has the body. The replaced waker must be dropped without the lock.
    Wait(Option<Waker>),
}

impl Reader {
    fn look(&self, cx: &mut Context<'_>) -> Found {
        let mut recording = lock(&self.shared);
        if recording.reader != self.number {
            return Found::End(Err(taken_back()));
        }
        if let Some(piece) = recording.next_kept() {
            return Found::Piece(piece);
        }
        if self.source.is_some() {
            return Found::Source(None);
        }
        if let Some(end) = &recording.end {
            return Found::End(end.clone());
        }
        match recording.source.take() {
            Some(source) => Found::Source(Some(source)),
            None => Found::Wait(recording.waiting.replace(cx.waker().clone())),
        }
    }

    /// Notes the end of the body, and wakes the reader that waits for it.
    fn on_end(&mut self, end: Result<(), Status>) {
        let waiting = lock(&self.shared).on_end(end);
        self.source = None;
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

impl http_body::Body for Reader {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        match this.look(cx) {
            Found::Piece(piece) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
            Found::End(end) => return Poll::Ready(end.err().map(Err)),
            Found::Wait(replaced) => {
                drop(replaced);
                return Poll::Pending;
            }
            Found::Source(Some(source)) => this.source = Some(source),
            Found::Source(None) => {}
        }
        loop {
            let Some(source) = &mut this.source else {
                return Poll::Ready(None);
            };
            match ready!(Pin::new(source).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    // gRPC ignores trailers of a request.
                    if let Ok(piece) = frame.into_data() {
                        let _dropped = lock(&this.shared).on_piece(this.number, &piece);
                        return Poll::Ready(Some(Ok(Frame::data(piece))));
                    }
                }
                None => {
                    this.on_end(Ok(()));
                    return Poll::Ready(None);
                }
                Some(Err(status)) => {
                    this.on_end(Err(status.clone()));
                    return Poll::Ready(Some(Err(status)));
                }
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let Some(source) = self.source.take() else {
            return;
        };
        let waiting = {
            let mut recording = lock(&self.shared);
            recording.source = Some(source);
            recording.waiting.take()
        };
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

/// The failure of a reader whose body was taken back.
fn taken_back() -> Status {
    Status::unavailable("the request body was taken back to retry the call")
}

#[cfg(test)]
mod tests;
