//! The client, with the real server and with faulty ones.

use std::net::TcpListener;

use crate::support::{Server, client};
use example_support::testing::{expect_in_order, message_of_failure, messages_of_success};
use tokio::net::TcpSocket;

#[test]
fn the_demo_says_what_it_does_and_every_call_succeeds() {
    let server = Server::start();
    let client = server.client(&[]).finish().expect_code(0);
    let lines = messages_of_success(&client);
    let connecting = format!("Connecting to server at {}...", server.address);
    assert_eq!(
        lines[..14],
        [
            connecting.as_str(),
            "Creating forward tunnel...",
            "✓ Forward tunnel established",
            "--- Making RPC calls through tunnel ---",
            "Sending: Hello from client #1",
            "Received: Echo: Hello from client #1",
            "Sending: Hello from client #2",
            "Received: Echo: Hello from client #2",
            "Sending: Hello from client #3",
            "Received: Echo: Hello from client #3",
            "--- A call that fails, as it should ---",
            "Expected error: NotFound: no such thing",
            "--- 5 concurrent calls ---",
            lines[13],
        ]
    );
    let mut concurrent = lines[13..18].to_vec();
    concurrent.sort_unstable();
    let expected = [1, 2, 3, 4, 5].map(|n| format!("Received: Echo: Concurrent call #{n}"));
    assert_eq!(concurrent, expected);
    assert_eq!(
        lines[18..],
        [
            "✓ All calls completed successfully!",
            "Closing tunnel...",
            "✓ Tunnel closed",
        ]
    );
}

#[test]
fn a_thousand_calls_at_once_are_all_answered() {
    let server = Server::start();
    let client = server.client(&["--calls", "1000"]).finish().expect_code(0);
    let lines = messages_of_success(&client);
    expect_in_order(
        &lines,
        &[
            "✓ Forward tunnel established",
            "--- Making RPC calls through tunnel ---",
            "1000 calls, up to 1000 at the same time",
            "250 of 1000 answered",
            "500 of 1000 answered",
            "750 of 1000 answered",
            "1000 of 1000 answered",
            "✓ All calls completed successfully!",
            "✓ Tunnel closed",
        ],
    );
    // Some calls may be answered before the last one has begun, but not many.
    let summary = "1000 calls on one tunnel, 1000 right answers, ";
    let rest = lines.iter().find_map(|line| line.strip_prefix(summary));
    let at_once = rest.and_then(|rest| rest.split(' ').next()?.parse().ok());
    assert!(at_once >= Some(500), "{lines:#?}");
}

#[test]
fn more_calls_than_a_tunnel_holds_at_once_wait_for_their_turn() {
    let server = Server::start();
    let client = server.client(&["--calls=2001"]).finish().expect_code(0);
    let lines = messages_of_success(&client);
    assert!(lines.contains(&"2001 calls, up to 1000 at the same time"));
    assert!(lines.contains(&"2001 of 2001 answered"));
}

#[test]
fn a_tunnel_kept_open_ends_when_its_time_is_up() {
    let server = Server::start();
    let client = server
        .client(&["--keep-open", "--for", "2"])
        .finish()
        .expect_code(0);
    let lines = messages_of_success(&client);
    expect_in_order(
        &lines,
        &[
            "✓ Forward tunnel established",
            "A call every 1 s, until 2 s have passed",
            "✓ All calls completed successfully!",
            "✓ Tunnel closed",
        ],
    );
    let answers = lines
        .iter()
        .filter(|line| line.starts_with("Received: Echo: Still here"));
    assert!((1..=3).contains(&answers.count()), "{lines:#?}");
    assert!(
        lines.iter().any(|line| line.starts_with("Time is up")),
        "{lines:#?}"
    );
}

#[test]
fn a_tunnel_kept_open_ends_at_ctrl_c() {
    let server = Server::start();
    let mut client = server.client(&["--keep-open"]);
    client.wait_for("Received: Echo: Still here #1");
    client.interrupt();
    let client = client.finish().expect_code(0);
    let lines = messages_of_success(&client);
    assert!(
        lines.iter().any(|line| line.starts_with("Ctrl-C: ")),
        "{lines:#?}"
    );
    assert_eq!(lines.last(), Some(&"✓ Tunnel closed"));
}

#[test]
fn a_tunnel_kept_open_and_unused_is_still_there() {
    let server = Server::start();
    let args = ["--keep-open", "--interval=3", "--for=4"];
    let client = server.client(&args).finish().expect_code(0);
    let lines = messages_of_success(&client);
    let again = lines.iter().find(|line| line.contains("Still here #2"));
    assert!(again.is_some(), "{lines:#?}");
}

#[test]
fn a_tunnel_kept_open_survives_a_restart_of_the_server() {
    let server = Server::start();
    let address = server.address.clone();
    let mut client = server.client(&["--keep-open"]);
    client.wait_for("Received: Echo: Still here #2");
    server.stop();
    client.wait_for("Lost the tunnel: ");
    let server = Server::start_at(&address);
    for _ in 0..2 {
        client.wait_for("Received: Echo: Still here #");
    }
    client.interrupt();
    client.finish().expect_code(0);
    server.stop();
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
    let (tunnel, connection) = (
        format!("cannot open a tunnel to {address}: "),
        format!("cannot connect to {address}: "),
    );
    assert!(
        error.starts_with(&tunnel) || error.starts_with(&connection),
        "{error}"
    );
}

#[test]
fn flags_that_contradict_each_other_are_refused() {
    for args in [
        &["--calls", "0"][..],
        &["--calls", "1", "--keep-open"],
        &["--for", "1"],
        &["--keep-open", "--interval", "0"],
    ] {
        client("localhost:50051", args).finish().expect_code(2);
    }
}

#[test]
fn an_address_without_a_port_is_explained() {
    let client = client("localhost", &[]).finish().expect_code(2);
    let errors = client.stderr().concat();
    assert!(errors.contains("there is no port"), "{errors}");
    assert!(errors.contains("localhost:50051"), "{errors}");
}

#[test]
fn help_shows_every_flag_and_the_default() {
    let client = client("localhost:1", &["--help"]).finish().expect_code(0);
    let help = client.stdout().concat();
    for word in [
        "--address",
        "--calls",
        "--keep-open",
        "--for",
        "--interval",
        "localhost:50051",
    ] {
        assert!(help.contains(word), "{word}");
    }
}
