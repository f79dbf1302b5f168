//! One call that follows a script.

use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use tokio::time::sleep;
use tonic::metadata::MetadataMap;
use tonic::{Code, Response, Status, Streaming};

use super::endings::Ending;
use super::watch::Records;
use crate::proto::failure::Moment;
use crate::proto::watch_response::State;
use crate::proto::{self as pb, Failure, Observed, Script};
use crate::{entry, pattern};

/// The state of one call. It lives in its handler's future, and then in its
/// response stream, so that its drop tells when either is dropped: that is how a
/// tonic handler hears that the call was given up.
pub(super) struct Call {
    records: Records,
    pub(super) script: Script,
    metadata: MetadataMap,
    begun: Instant,
    headers: MetadataMap,
    trailers: MetadataMap,
    requests: u32,
    bytes: u64,
    damaged: u64,
    pub(super) sent: u32,
    ended: bool,
}

impl Call {
    /// Starts a call with its first request; `None` where there is none.
    pub(super) fn begin(
        records: &Records,
        metadata: MetadataMap,
        first: Option<&pb::Request>,
    ) -> Result<Self, Status> {
        let script = first.and_then(|request| request.script.clone());
        let script = script.unwrap_or_default();
        let mut call = Self {
            records: records.clone(),
            metadata,
            begun: Instant::now(),
            headers: entry::to_metadata(&script.headers)?,
            trailers: entry::to_metadata(&script.trailers)?,
            script,
            requests: 0,
            bytes: 0,
            damaged: 0,
            sent: 0,
            ended: false,
        };
        call.note(|record| record.state = State::Running.into());
        if let Some(first) = first {
            call.received(first);
        }
        Ok(call)
    }

    fn note(&self, change: impl FnOnce(&mut pb::WatchResponse)) {
        self.records.update(&self.script.call, change);
    }

    /// Takes note of a request.
    fn received(&mut self, request: &pb::Request) {
        let expected = self.script.seed.wrapping_add(self.requests);
        self.damaged += u64::from(!pattern::is(expected, &request.payload));
        self.requests += 1;
        self.bytes += request.payload.len() as u64;
        self.note(|record| record.requests += 1);
    }

    /// Reads a request; `None` is the end of them.
    pub(super) async fn read(
        &mut self,
        requests: &mut Streaming<pb::Request>,
    ) -> Result<Option<pb::Request>, Status> {
        let read = requests.message().await;
        match &read {
            Ok(Some(request)) => self.received(request),
            Ok(None) => {}
            Err(_) => self.end(State::Broken),
        }
        read
    }

    /// Does what comes before the first response. Fails with a failure before
    /// headers, and returns one that is to follow them.
    pub(super) async fn prelude(&mut self) -> Result<Option<Status>, Status> {
        wait(self.script.delay_ms).await;
        match self.failure_at(Moment::BeforeHeaders) {
            Some(failure) => Err(failure),
            None => Ok(self.failure_at(Moment::AfterHeaders)),
        }
    }

    pub(super) async fn read_delay(&self) {
        wait(self.script.read_delay_ms).await;
    }

    pub(super) async fn linger(&self) {
        wait(self.script.linger_ms).await;
    }

    /// The failure that the script has for a moment, with which the call then ends.
    pub(super) fn failure_at(&mut self, moment: Moment) -> Option<Status> {
        let failure = self.script.failure.as_ref()?;
        let early = moment == Moment::AfterResponses && self.sent < failure.after_responses.max(1);
        if failure.moment() != moment || early {
            return None;
        }
        let status = status(failure, self.trailers.clone());
        self.end(State::Completed);
        Some(status)
    }

    /// The response with a number that the script asks for.
    pub(super) fn scripted_response(&self, number: u32) -> pb::Response {
        let number = self.script.seed.wrapping_add(number);
        self.response(pattern::of(number, self.script.response_bytes))
    }

    /// A response, with what only the first one has.
    pub(super) fn response(&self, payload: Bytes) -> pb::Response {
        let first = self.script.observe && self.sent == 0;
        pb::Response {
            payload,
            observed: first.then(|| self.observed()),
        }
    }

    /// What was observed by now.
    pub(super) fn observed(&self) -> Observed {
        let left = self.deadline();
        Observed {
            metadata: entry::from_metadata(&self.metadata),
            deadline: left.is_some(),
            deadline_ms: left.map_or(0, |left| left.as_millis() as u64),
            requests: self.requests.into(),
            request_bytes: self.bytes,
            damaged: self.damaged,
        }
    }

    /// How far away the deadline is, if the call came with one. tonic tells its
    /// handlers in the metadata alone.
    fn deadline(&self) -> Option<Duration> {
        let timeout = self.metadata.get("grpc-timeout")?.to_str().ok()?;
        let timeout = tunnel_core::parse_grpc_timeout(timeout)?;
        Some(timeout.saturating_sub(self.begun.elapsed()))
    }

    /// Takes note of a response that is handed over.
    pub(super) fn answered(&mut self) {
        self.sent += 1;
        self.note(|record| record.responses += 1);
    }

    /// The headers, with a body to follow, and the trailers of a success.
    pub(super) fn succeed<T>(&self, body: T) -> Response<T> {
        self.with_headers(body, Ending::Trailers(self.trailers.clone().into_headers()))
    }

    /// Ends a call that has a single response with that.
    pub(super) fn answer(mut self, response: pb::Response) -> Response<pb::Response> {
        self.answered();
        self.end(State::Completed);
        self.succeed(response)
    }

    /// Ends a call that has a single response without it.
    pub(super) fn fail_after_headers(self, failure: Status) -> Response<pb::Response> {
        self.with_headers(pb::Response::default(), Ending::Failure(failure))
    }

    fn with_headers<T>(&self, body: T, ending: Ending) -> Response<T> {
        let mut response = Response::new(body);
        *response.metadata_mut() = self.headers.clone();
        response.extensions_mut().insert(ending);
        response
    }

    /// Records how the call has ended.
    pub(super) fn end(&mut self, state: State) {
        if !std::mem::replace(&mut self.ended, true) {
            self.note(|record| record.state = state.into());
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(State::Cancelled);
    }
}

/// Waits, unless there is nothing to wait for: that would take a millisecond.
async fn wait(milliseconds: u32) {
    if milliseconds > 0 {
        sleep(Duration::from_millis(milliseconds.into())).await;
    }
}

fn status(failure: &Failure, trailers: MetadataMap) -> Status {
    let details = tunnel_proto::google::rpc::Status {
        code: failure.code,
        message: failure.message.clone(),
        details: failure.details.clone(),
    };
    // Whoever sends none sends no empty ones either.
    let details = match failure.details.is_empty() {
        true => Bytes::new(),
        false => details.encode_to_vec().into(),
    };
    let code = Code::from_i32(failure.code);
    Status::with_details_and_metadata(code, &failure.message, details, trailers)
}
