//! Channels whose type does not matter to what is measured, and the clients made of them.

use bytes::Bytes;
use tonic::body::Body;
use tonic::client::GrpcService;

use crate::proto::Blob;
use crate::proto::bench_client::BenchClient;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Anything a generated client can be made of.
pub(super) trait Channel:
    GrpcService<Body, Future: Send, Error: Send, ResponseBody = Self::Answer>
    + Clone
    + Send
    + Sync
    + 'static
{
    /// The body of its responses.
    type Answer: http_body::Body<Data = Bytes, Error = Self::AnswerError> + Send + 'static;
    /// The error of that body.
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

/// One client for each connection or tunnel; at least one.
#[derive(Clone)]
pub(super) struct Clients<C>(Vec<BenchClient<C>>);

impl<C: Channel> Clients<C> {
    /// # Panics
    ///
    /// Without a channel.
    pub(super) fn new(channels: Vec<C>) -> Self {
        assert!(!channels.is_empty(), "calls need a channel");
        Self(channels.into_iter().map(BenchClient::new).collect())
    }

    /// The first, or the next ones in turn.
    pub(super) fn get(&self, n: usize) -> BenchClient<C> {
        self.0[n % self.0.len()].clone()
    }

    /// What caller `n` of `of` uses: together they use all, and each the same number of them or
    /// one more.
    pub(super) fn share(&self, n: usize, of: usize) -> Vec<BenchClient<C>> {
        match self.0.len() <= of {
            true => vec![self.get(n)],
            false => self.0.iter().skip(n).step_by(of).cloned().collect(),
        }
    }
}

/// A message with so much payload.
pub(super) fn blob(size: u32) -> Blob {
    Blob {
        data: Bytes::from(vec![7; size as usize]),
    }
}
