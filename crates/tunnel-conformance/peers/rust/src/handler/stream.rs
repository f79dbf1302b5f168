//! Calls with a stream of responses.

use futures::stream::{self, BoxStream, StreamExt};
use tonic::{Response, Status, Streaming};

use super::call::Call;
use crate::proto as pb;
use crate::proto::failure::Moment;
use crate::proto::watch_response::State;

/// What a generated server sends.
pub(super) type Responses = BoxStream<'static, Result<pb::Response, Status>>;

/// No responses.
pub(super) fn none() -> Responses {
    stream::empty().boxed()
}

/// Requests that are repeated, each at once.
pub(super) struct Repeating {
    pub(super) first: pb::Request,
    pub(super) requests: Streaming<pb::Request>,
}

/// A call on its way through its responses.
pub(super) struct Responder {
    call: Call,
    first: Option<pb::Request>,
    requests: Option<Streaming<pb::Request>>,
    /// Whether the requests wait for the time at which they are read.
    read_later: bool,
    scripted: u32,
}

impl Responder {
    pub(super) fn new(call: Call, repeating: Option<Repeating>) -> Self {
        let (first, requests) = match repeating {
            Some(Repeating { first, requests }) => (Some(first), Some(requests)),
            None => (None, None),
        };
        Self {
            read_later: requests.is_some(),
            call,
            first,
            requests,
            scripted: 0,
        }
    }

    /// Does what the script says, to the end.
    pub(super) async fn respond(mut self) -> Result<Response<Responses>, Status> {
        let failure = self.call.prelude().await?;
        let headers = self.call.succeed(());
        Ok(headers.map(|()| match failure {
            Some(failure) => stream::iter([Err(failure)]).boxed(),
            None => self.into_stream().boxed(),
        }))
    }

    fn into_stream(self) -> impl futures::Stream<Item = Result<pb::Response, Status>> {
        stream::try_unfold(self, |mut responder| async {
            let response = responder.next().await?;
            Ok(response.map(|response| (response, responder)))
        })
    }

    async fn next(&mut self) -> Result<Option<pb::Response>, Status> {
        if self.call.sent > 0
            && let Some(failure) = self.call.failure_at(Moment::AfterResponses)
        {
            return Err(failure);
        }
        let response = match self.repeated().await? {
            Some(response) => Some(response),
            None => self.scripted(),
        };
        match response {
            Some(_) => self.call.answered(),
            None => {
                self.call.linger().await;
                self.call.end(State::Completed);
            }
        }
        Ok(response)
    }

    /// The response to the next request; `None` when there are no more requests.
    async fn repeated(&mut self) -> Result<Option<pb::Response>, Status> {
        if let Some(first) = self.first.take() {
            return Ok(Some(self.call.response(first.payload)));
        }
        if std::mem::take(&mut self.read_later) {
            self.call.read_delay().await;
        }
        let Some(requests) = &mut self.requests else {
            return Ok(None);
        };
        let read = self.call.read(requests).await?;
        if read.is_none() {
            self.requests = None;
        }
        Ok(read.map(|request| self.call.response(request.payload)))
    }

    /// The next response that the script asks for.
    fn scripted(&mut self) -> Option<pb::Response> {
        if self.scripted == self.call.script.responses {
            return None;
        }
        let response = self.call.scripted_response(self.scripted);
        self.scripted += 1;
        Some(response)
    }
}
