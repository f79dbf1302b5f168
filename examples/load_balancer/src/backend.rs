//! A backend: a tonic server that puts its name in every answer.

use std::future::pending;

use anyhow::{Context, Result};
use example_support::address::Address;
use example_support::listen::Listener;
use example_support::test::echo_service_server::{EchoService, EchoServiceServer};
use example_support::test::{EchoErrorRequest, EchoRequest, EchoResponse};
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tracing::error;
use tunnel_server::{Shutdown, TunnelServiceHandler, server_for_tunnels};

/// A server that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Backend {
    name: &'static str,
    address: Address,
    serving: JoinHandle<()>,
}

impl Backend {
    /// Starts a backend on a free port. Its service can be called directly and
    /// through tunnels, and is the same either way.
    pub(crate) async fn start(name: &'static str) -> Result<Self> {
        let address: Address = "127.0.0.1:0".parse()?;
        let listener = Listener::bind(&address).await?;
        let address = address.with_port(listener.port());
        let echo = EchoServiceServer::new(NamedEcho { name });
        let handler = TunnelServiceHandler::builder()
            .add_service(echo.clone())
            .build();
        let server = server_for_tunnels(Server::builder())
            .add_service(handler.service())
            .add_service(echo);
        let serving = tokio::spawn(async move {
            // Runs until the task is aborted, which closes all connections.
            let never = Shutdown::on(pending());
            if let Err(error) = handler.serve(server, listener.incoming(), never).await {
                error!("backend {name} failed: {error}");
            }
        });
        Ok(Self {
            name,
            address,
            serving,
        })
    }

    pub(crate) fn name(&self) -> &str {
        self.name
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Answers with its name and the message.
#[derive(Clone, Debug)]
struct NamedEcho {
    name: &'static str,
}

#[tonic::async_trait]
impl EchoService for NamedEcho {
    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        let message = answer(self.name, &request.get_ref().message);
        Ok(Response::new(EchoResponse { message }))
    }

    async fn echo_error(
        &self,
        _: Request<EchoErrorRequest>,
    ) -> Result<Response<EchoResponse>, Status> {
        Err(Status::unimplemented("this example needs no errors"))
    }
}

fn answer(name: &str, message: &str) -> String {
    format!("{name}: {message}")
}

/// The name of the backend that gave this answer to a message.
pub(crate) fn who_answered<'a>(answer: &'a str, message: &str) -> Result<&'a str> {
    let name = answer
        .strip_suffix(message)
        .and_then(|rest| rest.strip_suffix(": "));
    name.with_context(|| format!("{message:?} got the wrong answer {answer:?}"))
}

#[cfg(test)]
mod tests {
    use super::{answer, who_answered};

    #[test]
    fn an_answer_tells_who_gave_it_unless_it_belongs_to_another_call() {
        let answer = answer("A", "call 1");
        assert_eq!(who_answered(&answer, "call 1").expect("its answer"), "A");
        let error = who_answered(&answer, "call 2").expect_err("not its answer");
        assert_eq!(
            error.to_string(),
            r#""call 2" got the wrong answer "A: call 1""#
        );
    }
}
