//! Tests of the program's roles as processes, and of the files that the orchestrator writes.

// Helper functions may unwrap, as tests may.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tunnel_process::{Line, Process, Show, Source};

/// The time limit for a line and for the end of a process.
const LONG: Duration = Duration::from_secs(120);

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tunnel-bench"))
}

fn start(args: &[&str]) -> Process {
    let mut command = program();
    Process::start(command.args(args).stdin(Stdio::piped()), Show::Errors).unwrap()
}

fn said(process: &mut Process) -> Value {
    let stdout = |line: &Line| (line.source == Source::Stdout).then(|| line.text.clone());
    let line = process.wait_for("anything", LONG, stdout).unwrap();
    serde_json::from_str(&line).unwrap()
}

fn ask(process: &mut Process, job: &str) -> Value {
    process.write_line(job).unwrap();
    said(process)
}

/// Starts a server with these options and its client.
fn start_pair(options: &[&str]) -> [Process; 2] {
    let variant = ["--variant", "forward tunnel"];
    let mut server = start(&[&["server"], &variant[..], options].concat());
    let port = said(&mut server)["port"].to_string();
    let mut client = start(&[&["client"], &variant[..], &["--connect", &port]].concat());
    assert_eq!(said(&mut client)["ready"], true);
    [client, server]
}

/// Closes the input of processes, which must end well, one after the other.
fn expect_end(processes: [Process; 2]) {
    for mut process in processes {
        process.close_input();
        assert!(process.wait(LONG).unwrap().unwrap().success());
    }
}

fn orchestrate(args: &[&str]) -> (Output, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let output = program()
        .args(["--rounds", "1", "--millis", "50", "--out"])
        .arg(dir.path())
        .args(args)
        .output()
        .unwrap();
    (output, dir)
}

#[test]
fn a_client_answers_each_job_and_both_processes_end_with_their_input() {
    let [mut client, server] = start_pair(&[]);
    let mut ask = |job: &str| ask(&mut client, job);
    let load = r#""size":16,"at_once":2,"millis":20"#;
    for job in ["unary", "download", "upload", "ping_pong"] {
        let answer = ask(&format!(r#"{{"job":"{job}",{load}}}"#));
        assert!(answer["ok"]["count"].as_u64().unwrap() > 0, "{answer}");
    }
    let open = ask(r#"{"job":"open_loop","size":16,"per_second":1000,"millis":20}"#);
    assert_eq!(open["ok"]["count"], 20, "{open}");
    // The handler is fast, so no call times out, and the reply must show that.
    let brownout =
        r#"{"job":"brownout","callers":2,"timeout_millis":60000,"ends":"drop","millis":1}"#;
    let failures = &ask(brownout)["ok"]["failures"];
    assert!(
        failures["an answer before the timeout"].as_u64() > Some(0),
        "{failures}"
    );
    assert_eq!(ask(r#"{"job":"hold_idle","streams":7}"#)["ok"]["count"], 7);
    let unread = ask(r#"{"job":"hold_unread","streams":2,"size":1000}"#);
    assert_eq!(unread["ok"]["count"], 2);
    assert_eq!(ask(r#"{"job":"release"}"#)["ok"]["count"], 9);
    assert!(ask("tea").get("error").is_some());
    expect_end([client, server]);
}

#[test]
fn calls_to_a_slow_handler_time_out_and_do_not_fail_otherwise() {
    let slow = ["--wait-millis", "60000", "--busy-percent", "10"];
    let [mut client, server] = start_pair(&slow);
    for ends in ["drop", "deadline"] {
        let job = r#""job":"brownout","callers":3,"timeout_millis":10,"millis":30"#;
        let answer = ask(&mut client, &format!(r#"{{{job},"ends":"{ends}"}}"#));
        assert!(answer["ok"]["count"].as_u64() >= Some(3), "{answer}");
        assert!(answer["ok"].get("failures").is_none(), "{answer}");
    }
    expect_end([client, server]);
}

#[test]
fn every_variant_in_rust_is_measured_and_written_down() {
    let (output, dir) = orchestrate(&["--only", "unary 16 B x 64 over 10 tunnels"]);
    assert!(output.status.success(), "{output:?}");
    let (more, other) = orchestrate(&["--only", "ping-pong 16 B x 64"]);
    assert!(more.status.success(), "{more:?}");
    for (dir, variants) in [(dir, 6), (other, 8)] {
        let report = std::fs::read_to_string(dir.path().join("report.json")).unwrap();
        let report: Value = serde_json::from_str(&report).unwrap();
        let cells = report["rows"][0]["cells"].as_array().unwrap();
        assert_eq!(cells.len(), variants);
        for cell in cells {
            assert!(cell["rounds"][0].as_f64().unwrap() > 0.0, "{cell}");
        }
    }
}

#[test]
fn a_name_that_nothing_has_is_refused_with_the_names_there_are() {
    let (output, _dir) = orchestrate(&["--only", "carrier pigeon"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(error.contains("unary 16 B x 1024"), "{error}");
    let (output, _dir) = orchestrate(&["--variant", "carrier pigeon"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(error.contains("http/2 in a stream"), "{error}");
}
