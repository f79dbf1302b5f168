//! The peer with itself: every case passes in both directions and revisions, and
//! the command line keeps its promises.

use std::process::Command;

use interop_peer::testing::{ANY, Program};

const PEER: Program = Program(env!("CARGO_BIN_EXE_interop-peer"));

#[test]
fn every_case_passes_forward() {
    PEER.expect_forward(&[]);
}

#[test]
fn every_case_passes_forward_with_revision_one() {
    PEER.expect_forward(&["--revision", "one"]);
}

#[test]
fn every_case_passes_forward_with_revision_zero() {
    PEER.expect_forward(&["--revision", "zero"]);
}

#[test]
fn every_case_passes_in_reverse() {
    PEER.expect_reverse(&[]);
}

#[test]
fn every_case_passes_in_reverse_with_revision_one() {
    PEER.expect_reverse(&["--revision", "one"]);
}

#[test]
fn every_case_passes_in_reverse_with_revision_zero() {
    PEER.expect_reverse(&["--revision", "zero"]);
}

#[test]
fn one_reverse_tunnel_that_is_closed_in_order_ends_its_server_well() {
    let mut caller = PEER.start(&["call-reverse", "--case", "echo", "--address", ANY]);
    let address = caller.address();
    let serve = [
        "serve-reverse",
        "--key",
        "name=device",
        "--address",
        &address,
    ];
    let mut handler = PEER.start(&serve);
    assert_eq!(caller.finish(), (vec!["PASS".to_owned()], Some(0)));
    assert_eq!(handler.finish(), (vec!["CONNECTED".to_owned()], Some(0)));
}

#[test]
fn a_tunnel_that_is_refused_is_no_connection() {
    // It takes forward tunnels alone.
    let mut gateway = PEER.start(&["serve-forward", "--address", ANY]);
    let address = gateway.address();
    let (lines, code) = PEER
        .start(&["serve-reverse", "--address", &address])
        .finish();
    let [line] = &lines[..] else {
        panic!("one line is expected: {lines:?}");
    };
    assert!(line.starts_with("FAIL the tunnel: "), "{line}");
    assert_eq!(code, Some(1));
    gateway.release();
}

#[test]
fn ends_that_have_no_revision_in_common_open_no_tunnel() {
    let mut handler = PEER.start(&["serve-forward", "--revision", "zero", "--address", ANY]);
    let address = handler.address();
    let call = ["call-forward", "--revision", "one", "--case", "echo"];
    let mut caller = PEER.start(&[&call[..], &["--address", &address]].concat());
    let (lines, code) = caller.finish();
    assert!(lines[0].starts_with("FAIL no tunnel: "), "{lines:?}");
    assert_eq!(code, Some(1));
    handler.release();
}

#[test]
fn misuse_ends_with_two() {
    for args in [
        &[][..],
        &["serve"],
        &["serve-forward"],
        &["serve-forward", "--address", ANY, "--key", "a=b"],
        &["call-forward", "--address", ANY],
        &["call-forward", "--address", ANY, "--case", "unary,missing"],
        &["cases", "--revision", "two"],
    ] {
        let mut command = Command::new(PEER.0);
        let output = command.args(args).output().expect("the peer starts");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}
