//! Tests that run the program.

use std::net::TcpListener;

use example_support::testing::{Program, expect_in_order, messages};

const PROGRAM: &str = env!("CARGO_BIN_EXE_session-affinity");

/// The numbers of a table row, and the backends that answered.
fn row<'a>(lines: &[&'a str], name: &str) -> (Vec<usize>, &'a str) {
    let row = lines
        .iter()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix("   "));
    let row = row.unwrap_or_else(|| panic!("no row for {name} in {lines:#?}"));
    let numbers = row
        .split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    let (_, backends) = row.rsplit_once("   ").expect("backends come last");
    (numbers, backends)
}

#[test]
fn plain_calls_break_and_tunnels_hold() {
    let finished = Program::run(PROGRAM, &["--rounds", "50"]).expect_code(0);
    assert_eq!(finished.stderr(), [""; 0]);
    let lines = messages("INFO", &finished.stdout());
    expect_in_order(
        &lines,
        &[
            "--- Plain calls: each goes to the next backend ---",
            "Login: session A-1 at backend A",
            "UpdateProfile: NotFound: unknown session A-1 at backend B",
            "0 of 50 sessions held",
            "--- Calls through a tunnel: all go to the backend that accepted it ---",
            "50 of 50 sessions held",
            "--- Calls through a tunnel: all go to the backend that accepted it ---",
            "50 of 50 sessions held",
            "✓ Plain calls broke the sessions, tunnels held them",
        ],
    );
    assert_eq!(
        row(&lines, "plain calls"),
        (vec![50, 0, 100, 50], "A: 50, B: 50")
    );
    assert_eq!(row(&lines, "tunnel 1   "), (vec![50, 50, 150, 0], "A: 150"));
    assert_eq!(row(&lines, "tunnel 2   "), (vec![50, 50, 150, 0], "B: 150"));
    assert!(lines.last().is_some_and(|line| line.starts_with('✓')));
}

#[test]
fn one_session_is_enough() {
    let finished = Program::run(PROGRAM, &["--rounds=1"]).expect_code(0);
    let lines = messages("INFO", &finished.stdout());
    assert_eq!(row(&lines, "plain calls").0, [1, 0, 2, 1]);
}

#[test]
fn an_address_that_is_taken_is_an_error_on_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("some port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    let finished = Program::run(PROGRAM, &["--address", &address]).expect_code(1);
    assert_eq!(finished.stdout(), [""; 0]);
    let errors = messages("ERROR", &finished.stderr());
    assert_eq!(
        errors,
        [format!("cannot listen on {address}: address in use")]
    );
}

#[test]
fn nothing_is_shown_by_no_rounds_and_help_shows_the_flags() {
    Program::run(PROGRAM, &["--rounds", "0"]).expect_code(2);
    let help = Program::run(PROGRAM, &["--help"]).expect_code(0);
    let help = help.stdout().concat();
    assert!(
        help.contains("--rounds") && help.contains("--address"),
        "{help}"
    );
}
