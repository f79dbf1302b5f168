//! The server detects wrong answers of clients.

use crate::support::Gateway;
use example_support::echo::{Echo, reply_to};
use example_support::test::echo_service_server::EchoService;
use example_support::test::{EchoErrorRequest, EchoRequest, EchoResponse};
use example_support::testing::messages;
use tonic::{Request, Response, Status};

/// The end of messages that get another's answer.
struct LiesAbout(&'static str);

/// The end of requests for failures.
const FAILURE: &str = "a failure";

#[tonic::async_trait]
impl EchoService for LiesAbout {
    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        let mut message = reply_to(&request.get_ref().message);
        if message.ends_with(self.0) {
            message.push('!');
        }
        Ok(Response::new(EchoResponse { message }))
    }

    async fn echo_error(
        &self,
        request: Request<EchoErrorRequest>,
    ) -> Result<Response<EchoResponse>, Status> {
        if self.0 == FAILURE {
            return Err(Status::internal("something else"));
        }
        Echo.echo_error(request).await
    }
}

/// The error line of a server with such a client.
async fn complaint(what: &'static str) -> String {
    let gateway = Gateway::start();
    let device = gateway.stand_in(LiesAbout(what));
    device.serve().await.expect("the server accepts the tunnel");
    gateway.program.interrupt();
    let finished = gateway.program.finish().expect_code(1);
    let stdout = finished.stdout().concat();
    assert!(!stdout.contains("✓ All calls"), "{stdout}");
    let errors = messages("ERROR", &finished.stderr());
    assert_eq!(errors[1..], ["the calls to 1 of the clients failed"]);
    errors[0].to_owned()
}

#[tokio::test]
async fn a_wrong_answer_is_a_failure() {
    assert_eq!(
        complaint("server #2").await,
        "\"Hello from server #2\" got the wrong answer \"Echo: Hello from server #2!\""
    );
}

#[tokio::test]
async fn so_is_one_among_several_at_once() {
    assert_eq!(
        complaint("call #4").await,
        "\"Concurrent call #4\" got the wrong answer \"Echo: Concurrent call #4!\""
    );
}

#[tokio::test]
async fn so_is_the_wrong_error() {
    assert_eq!(
        complaint(FAILURE).await,
        "the wrong error: Internal: something else"
    );
}
