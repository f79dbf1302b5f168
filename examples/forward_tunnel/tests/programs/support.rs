//! The two programs.

use example_support::testing::{Finished, Program, messages};

const SERVER: &str = env!("CARGO_BIN_EXE_forward-tunnel-server");
const CLIENT: &str = env!("CARGO_BIN_EXE_forward-tunnel-client");

/// A server that accepts connections, on a port that was free.
pub(crate) struct Server {
    pub(crate) program: Program,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start() -> Self {
        let mut program = server(&["--address", "127.0.0.1:0"]);
        let port = program.wait_for("✓ Server listening on port ");
        let address = format!("127.0.0.1:{port}");
        program.wait_for("Waiting for clients to connect...");
        Self { program, address }
    }

    /// Presses Ctrl-C and waits for the end, which is a good one.
    pub(crate) fn stop(self) -> Finished {
        self.program.interrupt();
        self.program.finish().expect_code(0)
    }

    pub(crate) fn client(&self, args: &[&str]) -> Program {
        client(&self.address, args)
    }
}

pub(crate) fn server(args: &[&str]) -> Program {
    Program::start(SERVER, args)
}

pub(crate) fn client(address: &str, args: &[&str]) -> Program {
    let args = [&["--address", address], args].concat();
    Program::start(CLIENT, &args)
}

/// What a client said that went well.
pub(crate) fn messages_of_success(client: &Finished) -> Vec<&str> {
    assert_eq!(client.stderr(), [""; 0]);
    messages("INFO", &client.stdout())
}

/// The one line of what failed. Nothing before it claims a success.
pub(crate) fn message_of_failure(program: Program) -> String {
    let finished = program.finish().expect_code(1);
    let stdout = finished.stdout();
    assert!(stdout.iter().all(|line| !line.contains('✓')), "{stdout:#?}");
    let errors = messages("ERROR", &finished.stderr());
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors[0].to_owned()
}
