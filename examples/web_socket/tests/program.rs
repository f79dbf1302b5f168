//! Tests that run the program.

use example_support::testing::{Program, expect_in_order};

const PROGRAM: &str = env!("CARGO_BIN_EXE_web-socket");

#[test]
fn over_a_web_socket() {
    let finished = Program::run(PROGRAM, &[]).expect_code(0);
    assert_eq!(finished.stderr(), [""; 0]);
    let lines = finished.stdout();
    assert!(lines[0].ends_with("/tunnel, a WebSocket"), "{lines:#?}");
    expect_in_order(
        &lines,
        &[
            "✓ Tunnel established",
            "Unary call: sent \"Hello\", received b\"Echo: Hello\"",
            "Streaming call: 5 messages, each answered before the next was sent",
            "Large message: 1048576 bytes, there and back",
            "Calls at once: 100, every answer for the call that asked",
            "Expected error: Unimplemented: there is no /example.Echo/Shout here",
            "Closing the tunnel: the tunnel was drained",
            "The far end: the peer drained the tunnel",
            "✓ All calls completed, without tonic",
        ],
    );
}

#[test]
fn an_unknown_flag_is_an_error_and_help_is_not() {
    Program::run(PROGRAM, &["--tls"]).expect_code(2);
    let help = Program::run(PROGRAM, &["--help"]).expect_code(0);
    assert!(help.stdout().iter().any(|line| line.contains("WebSocket")));
}
