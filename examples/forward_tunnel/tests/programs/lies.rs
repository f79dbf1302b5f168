//! The client detects wrong answers of servers.

use crate::support::client;
use example_support::test::echo_service_server::{EchoService, EchoServiceServer};
use example_support::test::{EchoErrorRequest, EchoRequest, EchoResponse};
use example_support::testing::messages;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tunnel_server::TunnelServiceHandler;

/// Answers one message with another's answer, and all requests for failures with
/// the same one.
struct Liar {
    lies_about: &'static str,
}

#[tonic::async_trait]
impl EchoService for Liar {
    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        let mut message = example_support::echo::reply_to(&request.get_ref().message);
        if message.ends_with(self.lies_about) {
            message.push('!');
        }
        Ok(Response::new(EchoResponse { message }))
    }

    async fn echo_error(
        &self,
        _: Request<EchoErrorRequest>,
    ) -> Result<Response<EchoResponse>, Status> {
        Err(Status::internal("something else"))
    }
}

/// The error line of a client with such a server.
async fn complaint(lies_about: &'static str, args: &'static [&str]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("some port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    let handler = TunnelServiceHandler::builder()
        .add_service(EchoServiceServer::new(Liar { lies_about }))
        .build();
    let serving = Server::builder()
        .add_service(handler.service())
        .serve_with_incoming(TcpListenerStream::new(listener));
    let serving = tokio::spawn(serving);
    let client = tokio::task::spawn_blocking(move || client(&address, args).finish());
    let client = client.await.expect("it ends").expect_code(1);
    serving.abort();
    assert!(
        client
            .stdout()
            .iter()
            .all(|line| !line.contains("✓ All calls"))
    );
    let errors = messages("ERROR", &client.stderr());
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors[0].to_owned()
}

#[tokio::test]
async fn a_wrong_answer_is_a_failure() {
    let error = complaint("client #2", &[]).await;
    assert_eq!(
        error,
        "\"Hello from client #2\" got the wrong answer \"Echo: Hello from client #2!\""
    );
}

#[tokio::test]
async fn so_is_one_among_a_thousand() {
    let error = complaint("#777", &["--calls", "1000"]).await;
    assert!(
        error.starts_with("\"Call #777\" got the wrong answer"),
        "{error}"
    );
}

#[tokio::test]
async fn so_is_the_wrong_error() {
    let error = complaint("nothing", &[]).await;
    assert_eq!(error, "the wrong error: Internal: something else");
}
