//! Channels of any type, and the clients made of them.

use bytes::Bytes;
use tonic::body::Body;
use tonic::client::GrpcService;

use crate::proto::Blob;
use crate::proto::bench_client::BenchClient;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A channel for a generated client.
pub(super) trait Channel:
    GrpcService<Body, Future: Send, Error: Send, ResponseBody = Self::Answer>
    + Clone
    + Send
    + Sync
    + 'static
{
    /// The body of the responses.
    type Answer: http_body::Body<Data = Bytes, Error = Self::AnswerError> + Send + 'static;
    /// The error of the body.
    type AnswerError: Into<BoxError> + Send;
}

impl<T> Channel for T
where
    T: GrpcService<Body, Future: Send, Error: Send> + Clone + Send + Sync + 'static,
    T::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<BoxError> + Send,
{
    type Answer = T::ResponseBody;
    type AnswerError = <T::ResponseBody as http_body::Body>::Error;
}

/// The clients, one for each connection or tunnel. Never empty.
#[derive(Clone)]
pub(super) struct Clients<C>(Vec<BenchClient<C>>);

impl<C: Channel> Clients<C> {
    /// Makes a client of each channel.
    ///
    /// # Panics
    ///
    /// If `channels` is empty.
    pub(super) fn new(channels: Vec<C>) -> Self {
        assert!(!channels.is_empty(), "calls need a channel");
        Self(channels.into_iter().map(BenchClient::new).collect())
    }

    /// Client `n`, counted round robin.
    pub(super) fn get(&self, n: usize) -> BenchClient<C> {
        self.0[n % self.0.len()].clone()
    }

    /// The clients of caller `n` of `of`. The clients are divided evenly among the callers; if
    /// there are more callers than clients, callers share a client.
    pub(super) fn share(&self, n: usize, of: usize) -> Vec<BenchClient<C>> {
        match self.0.len() <= of {
            true => vec![self.get(n)],
            false => self.0.iter().skip(n).step_by(of).cloned().collect(),
        }
    }
}

/// A message with a payload of `size` bytes.
pub(super) fn blob(size: u32) -> Blob {
    Blob {
        data: Bytes::from(vec![7; size as usize]),
    }
}
