//! Calls, one after another, and which backend answered them.

use std::time::Duration;

use anyhow::{Result, anyhow};
use example_support::test::EchoRequest;
use example_support::test::echo_service_client::EchoServiceClient;
use tonic::Request;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Body as HttpBody, Bytes, StdError};

use crate::backend::who_answered;
use crate::report::Tally;

/// The deadline of a call, because a proxy may never answer.
const DEADLINE: Duration = Duration::from_secs(20);

/// Makes calls over a channel: a connection to HAProxy or a tunnel.
pub(crate) async fn make<T>(name: &str, channel: T, calls: usize) -> Result<Tally>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    let mut client = EchoServiceClient::new(channel);
    let mut tally = Tally::new(name);
    for n in 1..=calls {
        let message = format!("call {n} of {name}");
        let mut request = Request::new(EchoRequest {
            message: message.clone(),
        });
        request.set_timeout(DEADLINE);
        let answer = client.echo(request).await;
        // One line, without the metadata.
        let answer = answer.map_err(|status| {
            anyhow!(
                "{message} failed: {:?}: {}",
                status.code(),
                status.message()
            )
        })?;
        tally.count_answer(who_answered(&answer.get_ref().message, &message)?);
    }
    Ok(tally)
}
