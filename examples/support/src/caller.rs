//! Calls to the echo service, with every answer checked.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Body as HttpBody, Bytes, StdError};
use tonic::{Code, Request, Status};

use crate::echo::reply_to;
use crate::test::echo_service_client::EchoServiceClient;
use crate::test::{EchoErrorRequest, EchoRequest};

/// How long a call may take. The deadline travels with the call.
const DEADLINE: Duration = Duration::from_secs(30);

/// Makes calls with a stub over any kind of channel. Clones share it.
#[derive(Clone, Debug)]
pub struct Caller<T> {
    client: EchoServiceClient<T>,
}

impl<T> Caller<T>
where
    T: GrpcService<Body> + Clone,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    /// Wraps a stub that tonic generated.
    pub fn new(client: EchoServiceClient<T>) -> Self {
        Self { client }
    }

    /// Sends a message, checks the answer and returns it.
    ///
    /// # Errors
    ///
    /// On one line: how the call failed, or the wrong answer.
    pub async fn echo(&self, message: &str) -> Result<String> {
        let request = EchoRequest {
            message: message.to_owned(),
        };
        let mut client = self.client.clone();
        let answer = client.echo(with_deadline(request)).await;
        let answer = answer
            .map_err(|status| failure(&status))
            .with_context(|| format!("the call {message:?} failed"))?
            .into_inner()
            .message;
        ensure!(
            answer == reply_to(message),
            "{message:?} got the wrong answer {answer:?}"
        );
        Ok(answer)
    }

    /// Requests a failure, checks it and returns it.
    ///
    /// # Errors
    ///
    /// On one line: the answer that came instead.
    pub async fn expect_error(&self, code: Code, message: &str) -> Result<Status> {
        let request = EchoErrorRequest {
            code: code.into(),
            message: message.to_owned(),
        };
        let mut client = self.client.clone();
        match client.echo_error(with_deadline(request)).await {
            Err(status) if status.code() == code && status.message() == message => Ok(status),
            Err(status) => bail!("the wrong error: {}", failure(&status)),
            Ok(answer) => bail!("no error but {:?}", answer.into_inner().message),
        }
    }
}

fn with_deadline<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

/// A status on one line, without its metadata.
fn failure(status: &Status) -> anyhow::Error {
    anyhow::anyhow!("{:?}: {}", status.code(), status.message())
}
