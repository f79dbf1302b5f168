//! Tests that run the program.
//!
//! Most tests need HAProxy. Without it they print a note and test nothing. If the
//! environment variable CI is set, they fail. Some tests cover its absence.

use std::io::{Write, stderr};
use std::process::Command;

use example_support::testing::{Finished, Program, expect_in_order, messages};

const PROGRAM: &str = env!("CARGO_BIN_EXE_load-balancer");

/// Runs the program with few calls, if HAProxy is installed.
fn run(args: &[&str]) -> Option<Finished> {
    let finished = Program::run(PROGRAM, args).expect_code(0);
    let skipped = finished
        .stderr()
        .into_iter()
        .find(|line| line.contains("SKIPPED"));
    let Some(reason) = skipped else {
        return Some(finished);
    };
    // Not with `eprintln!`, whose lines are shown for tests that fail alone.
    let _ = writeln!(stderr(), "a test of the load balancer example: {reason}");
    None
}

/// Starts the program with endless calls, if HAProxy is installed.
/// Returns it with HAProxy's process and its address.
#[cfg(unix)]
fn start() -> Option<(Program, String, String)> {
    run(&[])?;
    let mut program = Program::start(PROGRAM, &["--calls", "4000000000"]);
    let started = program.wait_for("Started HAProxy, process ");
    let (process, rest) = started.split_once(", on ").expect("an address");
    let (address, _) = rest.split_once(", ").expect("more words");
    program.wait_for("--- Plain calls");
    Some((program, process.to_owned(), address.to_owned()))
}

/// The only error line of the program, with no success before it.
fn complaint(finished: &Finished) -> String {
    let stdout = finished.stdout();
    assert!(stdout.iter().all(|line| !line.contains('✓')), "{stdout:#?}");
    let stderr = finished.stderr();
    let errors = messages("ERROR", &stderr);
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors[0].to_owned()
}

/// The program where there is no HAProxy, with the variable CI set to something.
fn without_haproxy(ci: Option<&str>) -> Finished {
    let mut command = Command::new(PROGRAM);
    command.args(["--haproxy", "/nonexistent/haproxy"]);
    match ci {
        Some(value) => command.env("CI", value),
        None => command.env_remove("CI"),
    };
    Program::spawn(command).finish()
}

#[test]
fn plain_calls_spread_and_each_tunnel_stays_on_one_backend() {
    let Some(finished) = run(&["--calls", "50"]) else {
        return;
    };
    assert_eq!(finished.stderr(), [""; 0]);
    let stdout = finished.stdout();
    let lines = messages("INFO", &stdout);
    let one_backend = |tunnel: &str| {
        let row = |backend| format!("{tunnel}            50   {backend}: 50");
        let rows = [row("A"), row("B")];
        let row = rows.into_iter().find(|row| lines.contains(&row.as_str()));
        row.unwrap_or_else(|| panic!("{tunnel} is not on one backend in {lines:#?}"))
    };
    expect_in_order(
        &lines,
        &[
            "--- Plain calls: each goes to the next backend ---",
            "--- Calls through a tunnel: all go to one backend ---",
            "--- Calls through a tunnel: all go to one backend ---",
            "                 calls   answered by backend",
            "plain calls         50   A: 25, B: 25",
            &one_backend("tunnel 1"),
            &one_backend("tunnel 2"),
            "✓ Plain calls spread over both backends, each tunnel stayed on one",
        ],
    );
    assert!(lines.last().is_some_and(|line| line.starts_with('✓')));
}

#[test]
fn a_call_for_each_backend_is_enough_and_fewer_are_refused() {
    Program::run(PROGRAM, &["--calls", "1"]).expect_code(2);
    if let Some(finished) = run(&["--calls", "2"]) {
        let stdout = finished.stdout();
        let lines = messages("INFO", &stdout);
        expect_in_order(&lines, &["plain calls          2   A: 1, B: 1"]);
    }
}

#[cfg(unix)]
#[test]
fn haproxy_is_stopped_when_the_program_is_interrupted() {
    let Some((program, _, address)) = start() else {
        return;
    };
    program.interrupt();
    let finished = program.finish().expect_code(1);
    assert_eq!(complaint(&finished), "asked to end before all was shown");
    let connected = std::net::TcpStream::connect(address);
    let error = connected.expect_err("nobody listens any more");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[cfg(unix)]
#[test]
fn the_end_of_haproxy_is_the_reason_that_is_given() {
    let Some((program, process, _)) = start() else {
        return;
    };
    let script = r#"kill -KILL "$1""#;
    let killed = Command::new("sh")
        .args(["-c", script, "sh", &process])
        .status();
    assert!(killed.expect("sh runs").success(), "no signal was sent");
    let error = complaint(&program.finish().expect_code(1));
    assert!(error.starts_with("HAProxy ended (signal: 9"), "{error}");
}

#[cfg(unix)]
#[test]
fn what_a_program_that_does_not_serve_has_said_is_shown() {
    // A program that fails at once with a message when it is run like HAProxy.
    let finished = Program::run(PROGRAM, &["--haproxy", "cat"]).expect_code(1);
    let error = complaint(&finished);
    assert!(
        error.starts_with("HAProxy ended (exit status: 1): ") && error.contains("cat"),
        "{error}"
    );
}

#[test]
fn where_haproxy_is_not_installed_one_line_says_that_all_was_skipped() {
    for ci in [None, Some("")] {
        let finished = without_haproxy(ci).expect_code(0);
        assert_eq!(finished.stdout(), [""; 0]);
        let stderr = finished.stderr();
        assert_eq!(
            messages("WARN", &stderr),
            [
                "SKIPPED, nothing was shown: there is no /nonexistent/haproxy to run; \
              install it with `apt-get install haproxy`"
            ]
        );
    }
}

#[test]
fn where_nothing_may_be_skipped_its_absence_is_an_error() {
    let finished = without_haproxy(Some("true")).expect_code(1);
    assert_eq!(
        complaint(&finished),
        "there is no /nonexistent/haproxy to run, and with CI set nothing is skipped: \
         install it with `apt-get install haproxy`"
    );
}

#[test]
fn help_tells_of_the_flags_and_of_what_happens_without_haproxy() {
    let help = Program::run(PROGRAM, &["--help"]).expect_code(0);
    let help = help.stdout().concat();
    for word in ["--haproxy", "--calls", "Without HAProxy", "CI"] {
        assert!(help.contains(word), "{word} is not in {help}");
    }
}
