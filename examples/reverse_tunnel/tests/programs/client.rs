//! The client, with the real server, with one that the test controls, and with
//! faulty ones.

use std::net::TcpListener;
use std::time::Duration;

use crate::support::{Gateway, QuietGateway, client};
use example_support::held::Held;
use example_support::testing::{
    Finished, expect_in_order, message_of_failure, messages, messages_of_success,
};
use tokio::net::TcpSocket;
use tonic::{Code, Status};
use tunnel_server::TunnelServiceHandler;

/// The address of servers that are restarted on their port. No other program of
/// this machine takes ports of this address meanwhile.
const RESTARTED: &str = if cfg!(target_os = "linux") {
    "127.0.0.2:0"
} else {
    "127.0.0.1:0"
};

/// The only error of a client that had opened a tunnel.
fn complaint(client: &Finished) -> &str {
    assert!(!client.stdout().concat().contains("stopped"));
    let errors = messages("ERROR", &client.stderr());
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors[0]
}

#[test]
fn it_says_in_order_what_it_does_and_ends_when_the_server_has_closed_the_tunnel() {
    let gateway = Gateway::start();
    let client = gateway.client(&[]).finish().expect_code(0);
    let lines = messages_of_success(&client);
    assert_eq!(
        lines[..8],
        [
            "Registered Echo service on client",
            "Opening reverse tunnel to server...",
            "✓ Reverse tunnel established",
            "Waiting for calls from server...",
            "Client received request: Hello from server #1",
            "Client received request: Hello from server #2",
            "Client received request: Hello from server #3",
            "Client received request: to fail with NotFound: no such thing",
        ]
    );
    let mut concurrent = lines[8..13].to_vec();
    concurrent.sort_unstable();
    let expected =
        [1, 2, 3, 4, 5].map(|n| format!("Client received request: Concurrent call #{n}"));
    assert_eq!(concurrent, expected);
    assert!(
        lines[13].starts_with("Tunnel ended: the peer "),
        "{lines:#?}"
    );
    assert_eq!(lines[14..], ["✓ Client stopped"]);
}

#[test]
fn a_drain_is_an_end_in_order_and_lets_calls_in_flight_finish() {
    let gateway = QuietGateway::start();
    let client = client(&gateway.address, &[]);
    let tunnel = gateway.tunnel();
    let held = gateway.wait(Held::begin(tunnel.clone()));
    let (_, answer) = gateway
        .wait(async { tokio::join!(tunnel.drain(Duration::MAX), held.send("not too late")) });
    assert_eq!(answer.expect("it was in flight"), "Echo: not too late");
    let client = client.finish().expect_code(0);
    let lines = messages_of_success(&client);
    expect_in_order(
        &lines,
        &[
            "Client received request: not too late",
            "Tunnel ended: the peer drained the tunnel",
            "✓ Client stopped",
        ],
    );
}

#[test]
fn a_server_that_is_lost_is_an_error() {
    let gateway = QuietGateway::start();
    let mut client = client(&gateway.address, &[]);
    client.wait_for("✓ Reverse tunnel established");
    drop(gateway);
    let client = client.finish().expect_code(1);
    let error = complaint(&client);
    assert!(
        error.starts_with("the tunnel has ended: the tunnel's connection was lost"),
        "{error}"
    );
}

#[test]
fn a_server_that_throws_the_client_out_is_quoted() {
    let gateway = QuietGateway::start();
    let client = client(&gateway.address, &[]);
    let reason = Status::permission_denied("the device was revoked");
    gateway.wait(gateway.tunnel().close_with(reason));
    let client = client.finish().expect_code(1);
    let error = complaint(&client);
    assert!(error.starts_with("the tunnel has ended: "), "{error}");
    assert!(error.contains("the device was revoked"), "{error}");
}

#[test]
fn a_server_that_takes_no_reverse_tunnels_is_an_error_on_one_line() {
    let handler = TunnelServiceHandler::builder();
    let gateway = QuietGateway::with(handler.reverse_tunnels(false).build());
    let address = &gateway.address;
    let error = message_of_failure(client(address, &[]));
    assert_eq!(
        error,
        format!(
            "cannot open a tunnel to {address}: the far end refused the tunnel (Unimplemented): \
             this server accepts no reverse tunnels"
        )
    );
}

#[test]
fn ctrl_c_lets_calls_in_flight_finish() {
    for args in [&[][..], &["--reconnect"]] {
        let gateway = QuietGateway::start();
        let mut client = client(&gateway.address, args);
        let held = gateway.wait(Held::begin(gateway.tunnel()));
        client.interrupt();
        client.wait_for("Shutting down: draining tunnel...");
        let answer = gateway.wait(held.send("not too late"));
        assert_eq!(answer.expect("it was in flight"), "Echo: not too late");
        let client = client.finish().expect_code(0);
        let lines = messages_of_success(&client);
        expect_in_order(&lines, &["✓ Tunnel drained", "✓ Client stopped"]);
    }
}

#[test]
fn a_second_ctrl_c_cuts_them_off() {
    let gateway = QuietGateway::start();
    let mut client = client(&gateway.address, &[]);
    let held = gateway.wait(Held::begin(gateway.tunnel()));
    client.interrupt();
    client.wait_for("Shutting down: draining tunnel...");
    client.interrupt();
    let client = client.finish().expect_code(0);
    assert_eq!(
        messages("WARN", &client.stderr()),
        ["Second signal: cutting off calls in flight"]
    );
    let status = gateway.wait(held.end()).expect_err("it was cut off");
    assert_eq!(status.code(), Code::Unavailable);
}

#[test]
fn with_reconnect_it_waits_for_a_server_and_survives_its_restart() {
    let gateway = Gateway::start_at(RESTARTED);
    let address = gateway.address.clone();
    drop(gateway);
    let mut client = client(&address, &["--reconnect"]);
    let why = client.wait_for("Tunnel down: ");
    assert!(why.to_lowercase().contains("connection refused"), "{why}");
    for _ in 0..2 {
        let mut gateway = Gateway::start_at(&address);
        client.wait_for("✓ Reverse tunnel established");
        gateway
            .program
            .wait_for("✓ All calls to client completed successfully!");
        // The server sends no goodbye.
        drop(gateway);
        client.wait_for("Tunnel down: ");
    }
    client.interrupt();
    let client = client.finish().expect_code(0);
    let lines = messages_of_success(&client);
    expect_in_order(
        &lines,
        &[
            "Registered Echo service on client",
            "Opening reverse tunnel to server...",
            "✓ Reverse tunnel established",
            "Client received request: Hello from server #1",
            "✓ Reverse tunnel established",
            "Client received request: Hello from server #1",
            "✓ Client stopped",
        ],
    );
}

#[test]
fn with_reconnect_it_comes_back_when_the_server_drains_its_tunnel() {
    let gateway = QuietGateway::start();
    let mut client = client(&gateway.address, &["--reconnect"]);
    let tunnel = gateway.tunnel();
    // The call in flight keeps the old tunnel open beside the new one.
    let held = gateway.wait(Held::begin(tunnel.clone()));
    let drained = async {
        let (_, answer) = tokio::join!(tunnel.drain(Duration::MAX), async {
            let any = gateway.handler.as_channel();
            let ready = any.wait_for_ready(Duration::MAX).await;
            ready.expect("the client comes back");
            held.send("in the old tunnel").await
        });
        answer.expect("it was in flight")
    };
    assert_eq!(gateway.wait(drained), "Echo: in the old tunnel");
    for _ in 0..2 {
        client.wait_for("✓ Reverse tunnel established");
    }
    client.interrupt();
    client.finish().expect_code(0);
}

#[test]
fn without_a_server_one_line_says_so() {
    // Bound, so that no other program takes the port, and not listening.
    let port = TcpSocket::new_v4().expect("a socket");
    let loopback = "127.0.0.1:0".parse().expect("an address");
    port.bind(loopback).expect("some port is free");
    let address = port.local_addr().expect("it is bound").to_string();
    let error = message_of_failure(client(&address, &[]));
    assert_eq!(
        error,
        format!("cannot connect to {address}: connection refused")
    );
}

#[test]
fn an_unknown_host_is_named() {
    let error = message_of_failure(client("nobody.invalid:50051", &[]));
    assert!(
        error.starts_with("cannot connect to nobody.invalid:50051: "),
        "{error}"
    );
}

#[test]
fn a_server_that_does_not_speak_grpc_is_an_error_on_one_line() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("some port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    let client = client(&address, &[]);
    drop(listener.accept().expect("the client connects"));
    drop(listener);
    let error = message_of_failure(client);
    assert!(
        error.starts_with("cannot ") && error.contains(&address),
        "{error}"
    );
}

#[test]
fn help_shows_every_flag_and_the_default_and_mistakes_are_explained() {
    let help = client("localhost:1", &["--help"]).finish().expect_code(0);
    let help = help.stdout().concat();
    for word in ["--address", "--reconnect", "localhost:50051"] {
        assert!(help.contains(word), "{word}");
    }
    let client = client("localhost", &[]).finish().expect_code(2);
    let errors = client.stderr().concat();
    assert!(errors.contains("there is no port"), "{errors}");
}
