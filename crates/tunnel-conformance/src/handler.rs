//! The handler of a call, which runs the call's script.

use std::collections::VecDeque;
use std::future::pending;

use futures::stream::{self, BoxStream, StreamExt};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::mark::Mark;
use crate::metadata;
use crate::payload::pattern;
use crate::probe::{Probe, Record};
use crate::proto::step::{self, Action};
use crate::proto::{self, Entry, Received, Script};
use crate::script::SCRIPT_KEY;
use crate::trailers::Ending;

/// The source of a handler's request messages.
pub(crate) enum Inbound {
    One(Option<proto::Request>),
    Many(Streaming<proto::Request>),
    Detached,
}

/// The state of a call's handler. It is owned first by the handler's future and then by its
/// response stream, so its drop shows when either of them is dropped.
pub(crate) struct Handler {
    probe: Probe,
    call: String,
    request_metadata: Vec<Entry>,
    headers: MetadataMap,
    trailers: MetadataMap,
    steps: VecDeque<Action>,
    inbound: Inbound,
    received: Received,
    finished: bool,
}

impl Handler {
    pub(crate) fn new(probe: &Probe, request: Request<Inbound>) -> Result<Self, Status> {
        let (metadata, extensions, inbound) = request.into_parts();
        let script = Script::of(&metadata)?;
        let mut request_metadata = metadata::entries(&metadata);
        request_metadata.retain(|entry| entry.key != SCRIPT_KEY);
        if let Some(Mark(mark)) = extensions.get::<Mark>() {
            request_metadata.push(metadata::entry(Mark::KEY, mark));
        }
        let mut headers = MetadataMap::new();
        metadata::append(&mut headers, &script.headers)?;
        let mut trailers = MetadataMap::new();
        metadata::append(&mut trailers, &script.trailers)?;
        probe.note(&script.call, |record| record.started += 1);
        Ok(Self {
            probe: probe.clone(),
            call: script.call,
            request_metadata,
            headers,
            trailers,
            steps: script.steps.into_iter().filter_map(|s| s.action).collect(),
            inbound,
            received: Received::empty(),
            finished: false,
        })
    }

    /// Runs the script of a method with one response message.
    pub(crate) async fn respond_once(mut self) -> Result<Response<proto::Response>, Status> {
        let message = self.next().await?.unwrap_or_default();
        let ending = match self.next().await {
            Ok(None) => Ending::Trailers(self.trailers.clone().into_headers()),
            Ok(Some(_)) => return Err(Status::internal("the script sends a second message")),
            Err(status) => Ending::Failure(status),
        };
        Ok(self.response(message, ending))
    }

    /// Runs the script of a method with a stream of responses.
    pub(crate) async fn respond(
        mut self,
    ) -> Result<Response<BoxStream<'static, Result<proto::Response, Status>>>, Status> {
        self.until_output().await?;
        if matches!(self.steps.front(), Some(Action::SendHeaders(_))) {
            self.steps.pop_front();
        }
        let ending = Ending::Trailers(self.trailers.clone().into_headers());
        let headers = self.response((), ending);
        let stream = stream::unfold(self, |mut handler| async {
            let item = handler.next().await.transpose()?;
            Some((item, handler))
        });
        Ok(headers.map(|()| stream.boxed()))
    }

    fn response<T>(&self, message: T, ending: Ending) -> Response<T> {
        let mut response = Response::new(message);
        *response.metadata_mut() = self.headers.clone();
        response.extensions_mut().insert(ending);
        response
    }

    /// The next response message, or `None` at the end.
    async fn next(&mut self) -> Result<Option<proto::Response>, Status> {
        if self.finished {
            return Ok(None);
        }
        let next = self.follow().await;
        match next {
            Ok(Some(_)) => self.note(|record| record.sent += 1),
            Ok(None) | Err(_) => self.finish(),
        }
        next
    }

    async fn follow(&mut self) -> Result<Option<proto::Response>, Status> {
        loop {
            self.until_output().await?;
            match self.steps.pop_front() {
                None => return Ok(None),
                Some(Action::SendHeaders(_)) => {}
                Some(Action::Send(send)) => {
                    if let Some(message) = self.send(send) {
                        return Ok(Some(message));
                    }
                }
                Some(Action::Echo(echo)) => {
                    if let Some(request) = self.receive().await? {
                        if echo.count != 1 {
                            let count = echo.count.saturating_sub(1);
                            self.steps.push_front(Action::Echo(step::Echo { count }));
                        }
                        let payload = request.payload;
                        return Ok(Some(proto::Response {
                            payload,
                            ..Default::default()
                        }));
                    }
                }
                Some(Action::Summarize(_)) => {
                    let received = Some(self.received);
                    return Ok(Some(proto::Response {
                        received,
                        ..Default::default()
                    }));
                }
                Some(Action::Report(_)) => {
                    let metadata = self.request_metadata.clone();
                    return Ok(Some(proto::Response {
                        metadata,
                        ..Default::default()
                    }));
                }
                Some(_) => unreachable!("until_output stops at a step that sends"),
            }
        }
    }

    /// The next message of a `send` step. The rest of the step is put back into the script.
    fn send(&mut self, send: step::Send) -> Option<proto::Response> {
        let step::Send { count, size, seed } = send;
        let count = count.checked_sub(1)?;
        if count > 0 {
            let rest = step::Send {
                count,
                size,
                seed: seed + 1,
            };
            self.steps.push_front(Action::Send(rest));
        }
        let payload = pattern(
            seed,
            usize::try_from(size).expect("a payload fits in memory"),
        );
        Some(proto::Response {
            payload,
            ..Default::default()
        })
    }

    /// Runs the script up to the next step that sends something.
    async fn until_output(&mut self) -> Result<(), Status> {
        while let Some(step) = self.steps.pop_front() {
            match step {
                Action::Receive(step::Receive { count }) => {
                    let mut done = 0;
                    while (count == 0 || done < count) && self.receive().await?.is_some() {
                        done += 1;
                    }
                }
                Action::Wait(step::Wait { gate }) => self.probe.pass(&gate).await,
                Action::Fail(fail) => {
                    let status = self.status(fail);
                    self.finish();
                    return Err(status);
                }
                Action::Pend(_) => pending().await,
                Action::Panic(step::Panic { message }) => panic!("{message}"),
                Action::Detach(_) => self.detach(),
                sends => {
                    self.steps.push_front(sends);
                    break;
                }
            }
        }
        Ok(())
    }

    fn status(&self, fail: step::Fail) -> Status {
        Status::with_details_and_metadata(
            Code::from(fail.code),
            fail.message,
            fail.details,
            self.trailers.clone(),
        )
    }

    /// The next request message. If the request stream fails, the handler fails with the same
    /// status, as with `?`.
    async fn receive(&mut self) -> Result<Option<proto::Request>, Status> {
        let next = match &mut self.inbound {
            Inbound::One(one) => Ok(one.take()),
            Inbound::Many(many) => many.message().await,
            Inbound::Detached => Ok(None),
        };
        self.note(|record| record.count(&next));
        if let Ok(Some(message)) = &next {
            self.received.add(message);
        }
        next.inspect_err(|_| self.finish())
    }

    fn detach(&mut self) {
        let Inbound::Many(mut many) = std::mem::replace(&mut self.inbound, Inbound::Detached)
        else {
            return;
        };
        let (probe, call) = (self.probe.clone(), self.call.clone());
        tokio::spawn(async move {
            loop {
                let next = many.message().await;
                probe.note(&call, |record| record.count(&next));
                if !matches!(next, Ok(Some(_))) {
                    break;
                }
            }
        });
    }

    fn finish(&mut self) {
        if !std::mem::replace(&mut self.finished, true) {
            self.note(|record| record.finished += 1);
        }
    }

    fn note(&self, change: impl FnOnce(&mut Record)) {
        self.probe.note(&self.call, change);
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        if !self.finished {
            self.note(|record| record.dropped += 1);
        }
    }
}

impl Record {
    fn count(&mut self, next: &Result<Option<proto::Request>, Status>) {
        match next {
            Ok(Some(_)) => self.received += 1,
            Ok(None) => self.inputs_ended += 1,
            Err(status) => self.inputs_failed.push(status.code()),
        }
    }
}
