//! The server: its output, its end, and calls with and without a tunnel.

use std::net::{TcpListener, TcpStream};

use crate::support::{Server, server};
use example_support::held::Held;
use example_support::test::echo_service_client::EchoServiceClient;
use example_support::test::{EchoErrorRequest, EchoRequest};
use example_support::testing::{message_of_failure, messages};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tunnel_client::ForwardTunnel;

async fn connect(server: &Server) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address));
    let channel = endpoint.expect("an address").connect().await;
    channel.expect("the server accepts")
}

#[test]
fn it_says_in_order_what_it_does() {
    let server = Server::start();
    let port = server
        .address
        .strip_prefix("127.0.0.1:")
        .expect("a port")
        .to_owned();
    let finished = server.stop();
    assert_eq!(finished.stderr(), [""; 0]);
    assert_eq!(
        messages("INFO", &finished.stdout()),
        [
            "Starting Forward Tunnel Server...",
            "Registered Echo service",
            &format!("✓ Server listening on port {port}"),
            "Waiting for clients to connect...",
            "Shutting down: draining tunnels...",
            "✓ Server stopped",
        ]
    );
}

#[test]
fn a_port_that_is_taken_is_an_error_on_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("some port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    let error = message_of_failure(server(&["--address", &address]));
    assert_eq!(error, format!("cannot listen on {address}: address in use"));
}

#[test]
fn a_connection_that_says_nothing_is_no_event() {
    let server = Server::start();
    for _ in 0..3 {
        drop(TcpStream::connect(&server.address).expect("the server accepts"));
    }
    server.client(&[]).finish().expect_code(0);
    let finished = server.stop();
    assert_eq!(finished.stderr(), [""; 0]);
    assert_eq!(finished.stdout().len(), 6, "{:#?}", finished.stdout());
}

#[test]
fn a_silent_connection_does_not_keep_it_from_stopping() {
    let server = Server::start();
    let silent = TcpStream::connect(&server.address).expect("the server accepts");
    server.stop();
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_can_be_called_directly_and_through_a_tunnel_at_once() {
    let server = Server::start();
    let channel = connect(&server).await;
    let tunnel = ForwardTunnel::new(channel.clone())
        .open()
        .await
        .expect("a tunnel");
    let mut direct = EchoServiceClient::new(channel);
    let mut tunnelled = EchoServiceClient::new(tunnel.clone());
    let request = || EchoRequest {
        message: "Hello".into(),
    };
    let (direct_answer, tunnelled_answer) =
        tokio::join!(direct.echo(request()), tunnelled.echo(request()));
    for answer in [direct_answer, tunnelled_answer] {
        assert_eq!(
            answer.expect("an answer").into_inner().message,
            "Echo: Hello"
        );
    }
    let request = || EchoErrorRequest {
        code: Code::DataLoss.into(),
        message: "gone".into(),
    };
    let (direct_error, tunnelled_error) = tokio::join!(
        direct.echo_error(request()),
        tunnelled.echo_error(request())
    );
    for error in [direct_error, tunnelled_error] {
        let status = error.expect_err("it fails");
        assert_eq!((status.code(), status.message()), (Code::DataLoss, "gone"));
    }
    tunnel.close().await;
    drop(direct);
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_lets_calls_in_flight_finish() {
    let mut server = Server::start();
    let tunnel = ForwardTunnel::new(connect(&server).await)
        .open()
        .await
        .expect("a tunnel");
    let held = Held::begin(tunnel.clone()).await;
    server.program.interrupt();
    server
        .program
        .wait_for("Shutting down: draining tunnels...");
    let answer = held.send("not too late").await;
    assert_eq!(answer.expect("it was in flight"), "Echo: not too late");
    server.program.finish().expect_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_ctrl_c_cuts_them_off() {
    let mut server = Server::start();
    let tunnel = ForwardTunnel::new(connect(&server).await)
        .open()
        .await
        .expect("a tunnel");
    let held = Held::begin(tunnel.clone()).await;
    server.program.interrupt();
    server
        .program
        .wait_for("Shutting down: draining tunnels...");
    server.program.interrupt();
    let finished = server.program.finish().expect_code(0);
    let warnings = messages("WARN", &finished.stderr());
    assert_eq!(warnings[0], "Second signal: cutting off calls in flight");
    let status = held.end().await.expect_err("it was cut off");
    assert_eq!(status.code(), Code::Unavailable);
}
