//! The server: its output, its calls, and its end.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use crate::support::{Gateway, dial, server};
use example_support::echo::Echo;
use example_support::test::echo_service_server::EchoService;
use example_support::test::{EchoErrorRequest, EchoRequest, EchoResponse};
use example_support::testing::{
    Finished, expect_in_order, message_of_failure, messages, messages_of_success,
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use tunnel_client::{EndReason, ReverseTunnelServer};

/// A service that answers when the test allows it.
#[derive(Clone)]
struct Slow {
    asked: Arc<Semaphore>,
    may_answer: Arc<Semaphore>,
}

impl Slow {
    fn new() -> Self {
        let none = || Arc::new(Semaphore::new(0));
        Self {
            asked: none(),
            may_answer: none(),
        }
    }

    /// Waits until the server has called.
    async fn was_asked(&self) {
        self.asked.acquire().await.expect("never closed").forget();
    }

    fn answer(&self) {
        self.may_answer.add_permits(1);
    }
}

#[tonic::async_trait]
impl EchoService for Slow {
    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        self.asked.add_permits(1);
        let turn = self.may_answer.acquire().await;
        turn.expect("never closed").forget();
        Echo.echo(request).await
    }

    async fn echo_error(
        &self,
        request: Request<EchoErrorRequest>,
    ) -> Result<Response<EchoResponse>, Status> {
        Echo.echo_error(request).await
    }
}

/// Serves through one tunnel, in a task.
fn serve(device: ReverseTunnelServer) -> tokio::task::JoinHandle<EndReason> {
    tokio::spawn(async move { device.serve().await.expect("the server accepts it") })
}

/// The errors of a server whose calls to clients failed.
fn errors(server: &Finished) -> Vec<&str> {
    messages("ERROR", &server.stderr())
}

#[test]
fn it_says_in_order_what_it_does() {
    let gateway = Gateway::start();
    let (_, port) = gateway.address.rsplit_once(':').expect("a port");
    let port = port.to_owned();
    gateway.client(&[]).finish().expect_code(0);
    let finished = gateway.stop();
    let lines = messages_of_success(&finished);
    assert_eq!(
        lines[..13],
        [
            "Starting Reverse Tunnel Server...",
            &format!("✓ Server listening on port {port}"),
            "Waiting for client to connect with reverse tunnel...",
            "✓ Reverse tunnel established",
            "--- Making RPC calls to client ---",
            "Sending to client: Hello from server #1",
            "Client responded: Echo: Hello from server #1",
            "Sending to client: Hello from server #2",
            "Client responded: Echo: Hello from server #2",
            "Sending to client: Hello from server #3",
            "Client responded: Echo: Hello from server #3",
            "--- A call that fails, as it should ---",
            "Expected error: NotFound: no such thing",
        ]
    );
    assert_eq!(lines[13], "--- 5 concurrent calls ---");
    let mut concurrent = lines[14..19].to_vec();
    concurrent.sort_unstable();
    let expected = [1, 2, 3, 4, 5].map(|n| format!("Client responded: Echo: Concurrent call #{n}"));
    assert_eq!(concurrent, expected);
    assert_eq!(
        lines[19..],
        [
            "✓ All calls to client completed successfully!",
            "Closing tunnel...",
            "✓ Tunnel closed: the tunnel was drained",
            "Waiting for client to connect with reverse tunnel...",
            "Shutting down: draining tunnels...",
            "✓ Server stopped",
        ]
    );
}

#[test]
fn clients_that_come_at_once_are_all_called() {
    let gateway = Gateway::start();
    let clients = [(); 4].map(|()| gateway.client(&[]));
    for client in clients {
        client.finish().expect_code(0);
    }
    let finished = gateway.stop();
    let lines = messages_of_success(&finished);
    let tick = "✓ All calls to client completed successfully!";
    assert_eq!(lines.iter().filter(|line| **line == tick).count(), 4);
    // The log lines of clients do not mix.
    let calls: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("Sending to client: "))
        .collect();
    for (n, line) in calls.iter().enumerate() {
        assert!(line.ends_with(&format!("#{}", n % 3 + 1)), "{calls:#?}");
    }
}

#[test]
fn a_port_that_is_taken_is_an_error_on_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("some port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    let error = message_of_failure(server(&["--address", &address]));
    assert_eq!(error, format!("cannot listen on {address}: address in use"));
}

#[test]
fn a_connection_that_says_nothing_is_no_event_and_does_not_keep_it_from_stopping() {
    let gateway = Gateway::start();
    for _ in 0..3 {
        drop(TcpStream::connect(&gateway.address).expect("the server accepts"));
    }
    let silent = TcpStream::connect(&gateway.address).expect("the server accepts");
    gateway.client(&[]).finish().expect_code(0);
    gateway.program.interrupt();
    let finished = gateway.program.finish().expect_code(0);
    drop(silent);
    let lines = finished.stdout();
    let tunnels = lines.iter().filter(|line| line.contains("established"));
    assert_eq!(tunnels.count(), 1, "{lines:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_lets_the_call_in_flight_finish_and_makes_no_other() {
    let mut gateway = Gateway::start();
    let slow = Slow::new();
    let device = serve(gateway.stand_in(slow.clone()));
    slow.was_asked().await;
    gateway.program.interrupt();
    gateway
        .program
        .wait_for("Shutting down: draining tunnels...");
    slow.answer();
    let finished = gateway.program.finish().expect_code(0);
    assert_eq!(device.await.expect("no panic"), EndReason::PeerDrained);
    let lines = messages("INFO", &finished.stdout());
    expect_in_order(
        &lines,
        &[
            "Sending to client: Hello from server #1",
            "Shutting down: draining tunnels...",
            "Client responded: Echo: Hello from server #1",
            "✓ Server stopped",
        ],
    );
    let warnings = messages("WARN", &finished.stderr());
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].starts_with("Calls were cut short: "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_ctrl_c_cuts_it_off() {
    let mut gateway = Gateway::start();
    let slow = Slow::new();
    let device = serve(gateway.stand_in(slow.clone()));
    slow.was_asked().await;
    gateway.program.interrupt();
    gateway
        .program
        .wait_for("Shutting down: draining tunnels...");
    gateway.program.interrupt();
    let finished = gateway.program.finish().expect_code(0);
    let warnings = messages("WARN", &finished.stderr());
    assert_eq!(warnings[0], "Second signal: cutting off calls in flight");
    device.await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_the_middle_is_an_error_and_the_next_is_called() {
    let mut gateway = Gateway::start();
    let slow = Slow::new();
    let device = serve(gateway.stand_in(slow.clone()));
    slow.was_asked().await;
    // Its tunnel is closed with it.
    device.abort();
    gateway.program.wait_for("✓ Tunnel closed: ");
    let next = gateway.client(&[]);
    gateway
        .program
        .wait_for("✓ All calls to client completed successfully!");
    next.finish().expect_code(0);
    gateway.program.interrupt();
    let finished = gateway.program.finish().expect_code(1);
    let errors = errors(&finished);
    assert_eq!(errors.len(), 2, "{errors:#?}");
    assert!(
        errors[0].starts_with("the call \"Hello from server #1\" failed: Unavailable: "),
        "{errors:#?}"
    );
    assert_eq!(errors[1], "the calls to 1 of the clients failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_serves_something_else_is_an_error() {
    let mut gateway = Gateway::start();
    let device = serve(dial(&gateway.address).build());
    gateway.program.wait_for("✓ Tunnel closed: ");
    device.await.expect("no panic");
    gateway.program.interrupt();
    let finished = gateway.program.finish().expect_code(1);
    let errors = errors(&finished);
    assert!(errors[0].contains("Unimplemented"), "{errors:#?}");
}

#[test]
fn help_shows_the_flag_and_the_default() {
    let help = server(&["--help"]).finish().expect_code(0);
    let help = help.stdout().concat();
    assert!(
        help.contains("--address") && help.contains("localhost:50051"),
        "{help}"
    );
}
