//! A request body that can be sent a second time, if its call has to move.
//!
//! What has been read of the body is kept until the call has found its tunnel for good, up to a
//! limit. Invariants: the body itself belongs to one reader at a time and is polled without the
//! lock; everything that was read of it is kept, or `lost` says that something is not; only the
//! latest reader can lose something.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

/// What a kept piece counts beyond its bytes.
const OVERHEAD: usize = size_of::<Bytes>();

/// A request body, for as many tries as it takes.
pub(crate) struct Replay {
    shared: Arc<Mutex<Recording>>,
}

/// Whether a body that was taken back can be given out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakenBack {
    /// It can.
    Whole,
    /// More was read of it than is kept.
    Lost,
    /// It has failed by itself, which is the end of its call.
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
    /// Whether more is kept.
    keeping: bool,
    /// Whether something was read and is not kept.
    lost: bool,
    /// The latest reader, and how much of what is kept it has read. A number that no reader has
    /// while the body is taken back.
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

    /// Has the last reader read no more, and says whether there can be a next one. In one step:
    /// a reader that read on in between might lose what the next one would begin with.
    pub(crate) fn take_back(&self) -> TakenBack {
        let mut recording = lock(&self.shared);
        recording.reader += 1;
        match &recording.end {
            Some(Err(_)) => TakenBack::Failed,
            _ if recording.lost => TakenBack::Lost,
            _ => TakenBack::Whole,
        }
    }

    /// The body will not be asked for again: nothing more is kept for that.
    pub(crate) fn commit(&self) {
        let read = lock(&self.shared).commit();
        drop(read);
    }
}

impl Recording {
    /// Returns what is not kept any longer, to be dropped without the lock.
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
            // The call may go on for long: nor is the room kept that the pieces took.
            self.kept = VecDeque::new();
        }
        piece
    }

    /// A reader has read a piece. Returns what is not kept any longer, to be dropped without the
    /// lock.
    fn on_piece(&mut self, reader: u64, piece: &Bytes) -> VecDeque<Bytes> {
        let is_latest = reader == self.reader;
        // An earlier reader may be in the middle of a poll when the next one comes: its piece is
        // for the next one.
        if !is_latest || (self.keeping && self.kept_bytes < self.limit) {
            self.kept_bytes += piece.len() + OVERHEAD;
            self.kept.push_back(piece.clone());
            self.read += usize::from(is_latest);
            return VecDeque::new();
        }
        // The latest reader has read all that was kept, or it could not have read on.
        self.commit()
    }

    /// A reader has come to the end of the body. Returns who waits for it.
    fn on_end(&mut self, end: Result<(), Status>) -> Option<Waker> {
        self.end = Some(end);
        self.waiting.take()
    }
}

/// What a reader finds before it looks at the body itself.
enum Found {
    Piece(Bytes),
    End(Result<(), Status>),
    /// The body, unless the reader has it already.
    Source(Option<Body>),
    /// Another reader has it. Who waited before is to be dropped without the lock.
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

    /// The body has ended. Whoever reads next may wait for just that.
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
                    // Trailers of a request mean nothing to gRPC.
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

/// The failure of a try whose body is not there any more.
fn taken_back() -> Status {
    Status::unavailable("the request body was taken back to retry the call")
}

#[cfg(test)]
mod tests;
