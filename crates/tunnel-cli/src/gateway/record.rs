//! What happens with a call on its way through the gateway: it is counted, limited, ended when its client is revoked,
//! and written to the audit log.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tonic::body::Body;
use tonic::{Code, Status};

use super::audit::{AuditLog, Line};
use super::history::History;
use super::limits::{InFlight, Pause};
use super::tap::{Call, Ended, Kept, Taps};

/// What the audit log, the history and those who tap see of a call. It is written when this is dropped.
#[derive(Debug)]
pub(crate) struct Record {
    log: Option<Arc<AuditLog>>,
    /// Where the duration of the call is counted.
    pub(crate) history: Option<Arc<History>>,
    began: (SystemTime, Instant),
    pub(crate) who: Option<Arc<str>>,
    pub(crate) peer: Option<String>,
    pub(crate) key: Option<Arc<str>>,
    pub(crate) method: String,
    outcome: Option<(Code, String)>,
    taps: Arc<Taps>,
    tapped: Option<Tapped>,
    received: Arc<AtomicU64>,
    sent: u64,
}

/// What somebody who taps sees of a call.
#[derive(Clone, Debug)]
struct Tapped {
    number: u64,
    request: Kept,
    response: Kept,
}

impl Record {
    /// The record of a call that begins now.
    pub(crate) fn new(log: Option<Arc<AuditLog>>, taps: Arc<Taps>, method: &str) -> Self {
        Self {
            log,
            taps,
            tapped: None,
            history: None,
            began: (SystemTime::now(), Instant::now()),
            who: None,
            peer: None,
            key: None,
            method: method.to_owned(),
            outcome: None,
            received: Arc::default(),
            sent: 0,
        }
    }

    /// Tells those who tap that the call begins.
    pub(crate) fn begins(&mut self) {
        let Some(body) = self.taps.wanted(self.key.as_deref()) else {
            return;
        };
        let tapped = Tapped {
            number: self.taps.number(),
            request: Kept::new(body),
            response: Kept::new(body),
        };
        self.taps.tell(self.call(tapped.number), None);
        self.tapped = Some(tapped);
    }

    fn call(&self, number: u64) -> Call {
        Call {
            number,
            key: self.key.clone(),
            method: self.method.clone(),
            who: self.who.clone(),
            peer: self.peer.clone(),
        }
    }

    /// The call ends with this status.
    pub(crate) fn ended(&mut self, code: Code, message: &str) {
        self.outcome
            .get_or_insert_with(|| (code, message.to_owned()));
    }

    /// The call ends with the status in these headers or trailers, if there is one.
    fn ended_by(&mut self, headers: &HeaderMap) {
        if let Some(status) = Status::from_header_map(headers) {
            self.ended(status.code(), status.message());
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(history) = &self.history {
            history.ended(self.began.1.elapsed());
        }
        let (code, message) = self
            .outcome
            .take()
            .unwrap_or((Code::Cancelled, String::new()));
        let status = tunnel_server::wire::Code::from_wire(code as i32).name();
        let (time, since) = self.began;
        let bytes_received = self.received.load(Ordering::Relaxed);
        if let Some(log) = &self.log {
            let time = chrono::DateTime::<chrono::Utc>::from(time);
            log.write(&Line {
                time: time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
                who: self.who.as_deref(),
                peer: self.peer.clone(),
                key: self.key.as_deref(),
                method: &self.method,
                status,
                message: &message,
                duration_ms: since.elapsed().as_secs_f64() * 1e3,
                bytes_sent: self.sent,
                bytes_received,
            });
        }
        // Calls that were refused have not begun.
        let refused = || {
            self.taps
                .wanted(self.key.as_deref())
                .map(|_| self.taps.number())
        };
        let Some(number) = self
            .tapped
            .as_ref()
            .map(|tapped| tapped.number)
            .or_else(refused)
        else {
            return;
        };
        let kept = |kept: Option<&Kept>| kept.map(Kept::take).unwrap_or_default();
        let ended = Ended {
            status,
            message,
            duration: since.elapsed(),
            bytes_received,
            bytes_sent: self.sent,
            request: kept(self.tapped.as_ref().map(|tapped| &tapped.request)),
            response: kept(self.tapped.as_ref().map(|tapped| &tapped.response)),
        };
        self.taps.tell(self.call(number), Some(ended));
    }
}

/// Ends a call with a status when it resolves.
pub(crate) type Revoked = Pin<Box<dyn Future<Output = Status> + Send>>;

/// The body of a request on its way to a device. It ends when its client is revoked, also while the client does not read
/// its response.
pub(crate) struct RequestBody {
    inner: Body,
    /// Whether the body is known to be complete at its end.
    tells_its_end: bool,
    revoked: Revoked,
    received: Arc<AtomicU64>,
    kept: Option<Kept>,
    call: Arc<InFlight>,
    pause: Option<Pause>,
}

impl RequestBody {
    /// Counts and limits a body.
    pub(crate) fn wrap(
        inner: Body,
        tells_its_end: bool,
        record: &Record,
        call: &Arc<InFlight>,
        revoked: Revoked,
    ) -> Body {
        Body::new(Self {
            inner,
            tells_its_end,
            revoked,
            received: record.received.clone(),
            kept: record.tapped.as_ref().map(|tapped| tapped.request.clone()),
            call: call.clone(),
            pause: None,
        })
    }
}

/// Waits as long as the key must.
fn poll_pause(pause: &mut Option<Pause>, cx: &mut Context<'_>) -> Poll<()> {
    if let Some(wait) = pause {
        ready!(wait.as_mut().poll(cx));
        *pause = None;
    }
    Poll::Ready(())
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Poll::Ready(status) = this.revoked.as_mut().poll(cx) {
            this.revoked = Box::pin(std::future::pending());
            return Poll::Ready(Some(Err(status)));
        }
        ready!(poll_pause(&mut this.pause, cx));
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        // hyper takes a call that its client cancels for the end of the upload. The device must not.
        if frame.is_none() && this.tells_its_end && !this.inner.is_end_stream() {
            let status = Status::cancelled("the client has cancelled the call");
            return Poll::Ready(Some(Err(status)));
        }
        if let Some(data) = frame
            .as_ref()
            .and_then(|frame| frame.as_ref().ok()?.data_ref())
        {
            this.received
                .fetch_add(data.len() as u64, Ordering::Relaxed);
            if let Some(kept) = &this.kept {
                kept.add(data);
            }
            this.pause = this.call.pause_after(data.len());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

/// The body of a response on its way to a client.
pub(crate) struct ResponseBody {
    /// `None` when the client was revoked: the device sees a cancelled call.
    inner: Option<Body>,
    record: Record,
    call: Arc<InFlight>,
    pause: Option<Pause>,
    revoked: Revoked,
}

impl ResponseBody {
    /// Counts, limits and records a response.
    pub(crate) fn wrap(
        response: http::Response<Body>,
        mut record: Record,
        call: Arc<InFlight>,
        revoked: Revoked,
    ) -> http::Response<Body> {
        record.ended_by(response.headers());
        response.map(|inner| {
            Body::new(Self {
                inner: Some(inner),
                record,
                call,
                pause: None,
                revoked,
            })
        })
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.inner.is_none() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(status) = this.revoked.as_mut().poll(cx) {
            this.inner = None;
            this.record.ended(status.code(), status.message());
            let mut trailers = HeaderMap::new();
            // Fails only for illegal messages; then there are no trailers, which is an error too.
            let _ = status.add_header(&mut trailers);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        ready!(poll_pause(&mut this.pause, cx));
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.record.sent += data.len() as u64;
                    if let Some(tapped) = &this.record.tapped {
                        tapped.response.add(data);
                    }
                    this.pause = this.call.pause_after(data.len());
                }
                if let Some(trailers) = frame.trailers_ref() {
                    this.record.ended_by(trailers);
                }
            }
            Some(Err(status)) => this.record.ended(status.code(), status.message()),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner
            .as_ref()
            .is_none_or(http_body::Body::is_end_stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::limits::Limits;
    use crate::gateway::settings::Settings;
    use http_body::Body as _;

    /// A body that ends after one frame, completely or not.
    struct Cut(Option<Bytes>, bool);

    impl http_body::Body for Cut {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_none() && self.1
        }
    }

    #[tokio::test]
    async fn an_upload_that_is_cut_is_not_complete() {
        for (tells_its_end, complete) in [(true, true), (true, false), (false, false)] {
            let record = Record::new(None, Arc::default(), "/a/b");
            let limits = Limits::new(&Settings::default());
            let call = Arc::new(limits.begin(&"key".into()).expect("no limit"));
            let body = Body::new(Cut(Some(Bytes::from_static(b"x")), complete));
            let revoked = Box::pin(std::future::pending());
            let mut upload = RequestBody::wrap(body, tells_its_end, &record, &call, revoked);
            let mut next =
                async || std::future::poll_fn(|cx| Pin::new(&mut upload).poll_frame(cx)).await;
            assert!(next().await.is_some_and(|frame| frame.is_ok()));
            let end = next().await;
            assert_eq!(end.is_none(), complete || !tells_its_end);
        }
    }
}
