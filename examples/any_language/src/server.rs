//! The server, in Python or in Rust.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;
use clap::ValueEnum;
use example_support::echo::Echo;
use example_support::test::FILE_DESCRIPTOR_SET;
use example_support::test::echo_service_server::EchoServiceServer;
use tonic::transport::Server as TonicServer;
use tonic::transport::server::TcpIncoming;
use tunnel_process::{Process, Show, has_python, make_python, python_of};

/// The language of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    Python,
    Rust,
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A running server.
pub(crate) struct Server {
    pub(crate) language: Language,
    pub(crate) address: String,
    _process: Option<Process>,
}

impl Server {
    /// Starts a server in this language, or in the first that this machine has.
    pub(crate) async fn start(language: Option<Language>) -> Result<Self> {
        let language = language.unwrap_or_else(|| match has_python() {
            true => Language::Python,
            false => {
                println!(
                    "Python and its module venv are not installed: a server in Rust stands in."
                );
                Language::Rust
            }
        });
        match language {
            Language::Python => Self::python().await,
            Language::Rust => Self::rust(),
        }
    }

    async fn python() -> Result<Self> {
        make_python(&environment(), &sources().join("requirements.txt"))?;
        let mut process = Process::start(python("server.py").stdin(Stdio::piped()), Show::Errors)?;
        let address = process.next_stdout_after("server: listening at ").await?;
        Ok(Self {
            language: Language::Python,
            address,
            _process: Some(process),
        })
    }

    fn rust() -> Result<Self> {
        let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into());
        let incoming = incoming.map_err(|error| anyhow::anyhow!("cannot listen: {error}"))?;
        let address = incoming.local_addr()?.to_string();
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let server = TonicServer::builder()
            .add_service(EchoServiceServer::new(Echo))
            .add_service(reflection);
        tokio::spawn(server.serve_with_incoming(incoming));
        Ok(Self {
            language: Language::Rust,
            address,
            _process: None,
        })
    }

    /// A client in the language of the server, for a gateway and a key.
    pub(crate) fn client(&self, gateway: &str, key: &str) -> Option<Command> {
        (self.language == Language::Python).then(|| {
            let mut client = python("client.py");
            client.args([gateway, key]).stdin(Stdio::null());
            client
        })
    }
}

/// The directory of the example's Python sources.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python")
}

/// The virtual environment, beside what cargo has built.
fn environment() -> PathBuf {
    let this = std::env::current_exe().unwrap_or_default();
    let built = this
        .parent()
        .and_then(Path::parent)
        .unwrap_or(Path::new("target"));
    built.join("any-language-venv")
}

/// Python with a program of the example, which finds the file test/echo.proto.
fn python(program: &str) -> Command {
    let mut command = Command::new(python_of(&environment()));
    command.arg(sources().join(program));
    command.env("PYTHONPATH", sources().join("../../../proto"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
