//! The echo service: an ordinary tonic service that knows nothing of tunnels.

use tonic::{Code, Request, Response, Status};

use crate::test::echo_service_server::EchoService;
use crate::test::{EchoErrorRequest, EchoRequest, EchoResponse};

/// Repeats messages, and fails on request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

#[tonic::async_trait]
impl EchoService for Echo {
    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        let message = reply_to(&request.get_ref().message);
        Ok(Response::new(EchoResponse { message }))
    }

    async fn echo_error(
        &self,
        request: Request<EchoErrorRequest>,
    ) -> Result<Response<EchoResponse>, Status> {
        let EchoErrorRequest { code, message } = request.into_inner();
        match Code::from_i32(code) {
            // The requested status is OK.
            Code::Ok => Ok(Response::new(EchoResponse { message })),
            code => Err(Status::new(code, message)),
        }
    }
}

/// Repeats messages with its own name before them, so that a caller sees who has answered.
#[derive(Clone, Debug)]
pub struct NamedEcho(pub String);

#[tonic::async_trait]
impl EchoService for NamedEcho {
    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        let message = format!("{}: {}", self.0, request.get_ref().message);
        Ok(Response::new(EchoResponse { message }))
    }

    async fn echo_error(
        &self,
        request: Request<EchoErrorRequest>,
    ) -> Result<Response<EchoResponse>, Status> {
        Echo.echo_error(request).await
    }
}

/// The answer to a message.
///
/// ```
/// assert_eq!(example_support::echo::reply_to("Hello"), "Echo: Hello");
/// ```
pub fn reply_to(message: &str) -> String {
    format!("Echo: {message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fail_with(code: i32) -> Result<EchoResponse, Status> {
        let message = "as you wish".to_owned();
        let request = Request::new(EchoErrorRequest { code, message });
        Echo.echo_error(request).await.map(Response::into_inner)
    }

    #[tokio::test]
    async fn the_error_is_the_one_that_was_asked_for() {
        for code in 1..=16 {
            let status = fail_with(code).await.expect_err("it fails");
            assert_eq!(status.code(), Code::from_i32(code));
            assert_eq!(status.message(), "as you wish");
        }
        let status = fail_with(99).await.expect_err("it fails");
        assert_eq!(status.code(), Code::Unknown);
    }

    #[tokio::test]
    async fn asking_for_success_is_no_error() {
        let answer = fail_with(0).await.expect("it succeeds");
        assert_eq!(answer.message, "as you wish");
    }
}
