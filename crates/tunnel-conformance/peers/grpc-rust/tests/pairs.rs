//! The program with itself: every case passes, whoever dials and whichever
//! revision is spoken.

use interop_peer::testing::Program;

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_grpc-interop"));

#[test]
fn forward_in_revision_one() {
    PROGRAM.expect_forward(&["--revision", "one"]);
}

#[test]
fn forward_in_revision_zero() {
    PROGRAM.expect_forward(&["--revision", "zero"]);
}

#[test]
fn reverse_in_revision_one() {
    PROGRAM.expect_reverse(&["--revision", "one"]);
}

#[test]
fn reverse_in_revision_zero() {
    PROGRAM.expect_reverse(&["--revision", "zero"]);
}

/// What a caller says when nobody has what it wants, and how it ends.
#[test]
fn a_case_that_fails_is_told_and_fails_the_program() {
    let nobody = ["call-forward", "--address", "127.0.0.1:1", "--case"];
    for (cases, last) in [
        ("soak", "FAIL no tunnel: "),
        ("soak,ping_pong", "FAIL 2 of 2 cases: "),
    ] {
        let mut caller = PROGRAM.start(&[&nobody[..], &[cases]].concat());
        let (said, code) = caller.finish();
        let found = said.last().is_some_and(|line| line.starts_with(last));
        assert!(found, "expected {last:?} to end {said:#?}");
        assert_eq!(code, Some(1));
    }
}
