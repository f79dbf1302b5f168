//! The two programs.

use example_support::testing::{Finished, Program};

const SERVER: &str = env!("CARGO_BIN_EXE_forward-tunnel-server");
const CLIENT: &str = env!("CARGO_BIN_EXE_forward-tunnel-client");

/// A server on a free port that accepts connections.
pub(crate) struct Server {
    pub(crate) program: Program,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0")
    }

    /// Starts a server on the port of another one.
    pub(crate) fn start_at(address: &str) -> Self {
        let mut program = server(&["--address", address]);
        let port = program.wait_for("✓ Server listening on port ");
        let address = format!("127.0.0.1:{port}");
        program.wait_for("Waiting for clients to connect...");
        Self { program, address }
    }

    /// Sends SIGINT and waits for a successful end.
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
