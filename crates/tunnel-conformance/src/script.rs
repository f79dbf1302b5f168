//! Builds scripts for the test service.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Code, Request, Status};

use crate::metadata::entry;
use crate::proto::step::{self, Action};
use crate::proto::{Script, Step};

/// The metadata key of a call's script, which is encoded as base64.
pub const SCRIPT_KEY: &str = "x-script";

impl Script {
    /// An empty script. The probe records the call under this name.
    pub fn named(call: impl Into<String>) -> Self {
        Self {
            call: call.into(),
            ..Self::default()
        }
    }

    /// Adds a response header.
    pub fn header(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push(entry(key, value));
        self
    }

    /// Adds a trailer, sent whether the call succeeds or fails.
    pub fn trailer(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.trailers.push(entry(key, value));
        self
    }

    /// Reads `count` request messages, or fewer if the stream ends.
    pub fn receive(self, count: u64) -> Self {
        self.step(Action::Receive(step::Receive { count }))
    }

    /// Reads the request stream to its end.
    pub fn receive_all(self) -> Self {
        self.receive(0)
    }

    /// Sends `count` messages with the patterns of `seed`, `seed + 1` and so on.
    pub fn send(self, count: u64, size: usize, seed: u64) -> Self {
        let size = size as u64;
        self.step(Action::Send(step::Send { count, size, seed }))
    }

    /// Answers `count` request messages with their own payload.
    pub fn echo(self, count: u64) -> Self {
        self.step(Action::Echo(step::Echo { count }))
    }

    /// Answers every request message with its own payload.
    pub fn echo_all(self) -> Self {
        self.echo(0)
    }

    /// Sends one message with a summary of the received messages.
    pub fn summarize(self) -> Self {
        self.step(Action::Summarize(step::Summarize {}))
    }

    /// Sends one message with the request metadata that the handler sees.
    pub fn report(self) -> Self {
        self.step(Action::Report(step::Report {}))
    }

    /// Sends the response headers.
    pub fn send_headers(self) -> Self {
        self.step(Action::SendHeaders(step::SendHeaders {}))
    }

    /// Waits until [`Probe::open`](crate::Probe::open) opens the gate.
    pub fn wait(self, gate: &str) -> Self {
        let gate = gate.to_owned();
        self.step(Action::Wait(step::Wait { gate }))
    }

    /// Ends the call with this status and the script's trailers.
    pub fn fail(self, code: Code, message: &str) -> Self {
        self.fail_with(code, message, Bytes::new())
    }

    /// Like [`fail`](Self::fail), with details.
    pub fn fail_with(self, code: Code, message: &str, details: impl Into<Bytes>) -> Self {
        self.step(Action::Fail(step::Fail {
            code: code.into(),
            message: message.to_owned(),
            details: details.into(),
        }))
    }

    /// Waits forever: the handler runs until it is dropped.
    pub fn pend(self) -> Self {
        self.step(Action::Pend(step::Pend {}))
    }

    /// Panics with this message.
    pub fn panic(self, message: &str) -> Self {
        let message = message.to_owned();
        self.step(Action::Panic(step::Panic { message }))
    }

    /// Moves the request stream to a separate task, which reads it to its end and reports the end
    /// to the probe.
    pub fn detach(self) -> Self {
        self.step(Action::Detach(step::Detach {}))
    }

    fn step(mut self, action: Action) -> Self {
        let action = Some(action);
        self.steps.push(Step { action });
        self
    }

    /// A request that carries this script.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let text = STANDARD.encode(self.encode_to_vec());
        let value = AsciiMetadataValue::try_from(text).expect("base64 is legal metadata");
        let mut request = Request::new(message);
        request.metadata_mut().insert(SCRIPT_KEY, value);
        request
    }

    /// The script of a request, or a script that echoes if there is none.
    pub fn of(metadata: &MetadataMap) -> Result<Self, Status> {
        let Some(text) = metadata.get(SCRIPT_KEY) else {
            return Ok(Self::default().echo_all());
        };
        let bytes = STANDARD
            .decode(text.as_bytes())
            .map_err(|error| Status::invalid_argument(format!("the script: {error}")))?;
        Self::decode(&bytes[..])
            .map_err(|error| Status::invalid_argument(format!("the script: {error}")))
    }
}
