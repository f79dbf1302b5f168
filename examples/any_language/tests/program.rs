//! Tests that run the program.

use example_support::testing::Program;
use tunnel_process::{cargo, expect_success};

const PROGRAM: &str = env!("CARGO_BIN_EXE_any-language");

#[test]
fn a_server_in_rust_is_called_by_its_name() {
    // The example runs it.
    expect_success(cargo().args(["build", "--package", "tunnel-cli"])).expect("it builds");
    let finished = Program::run(PROGRAM, &["--server", "rust"]).expect_code(0);
    let lines = finished.stdout();
    let mut rest = lines.iter();
    for part in [
        "$ tunnel gateway",
        "$ tunnel agent",
        "$ tunnel call",
        "test.EchoService",
        "$ tunnel call",
        "Echo: Hello",
        "✓ A Rust server was called by its name",
    ] {
        assert!(
            rest.any(|line| line.contains(part)),
            "no {part:?} in {lines:#?}"
        );
    }
}
