//! Builds the programs of a run, and reports which tools are missing.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use tunnel_process::{cargo, expect_success, has_python, make_python, python_of, root};

use crate::matrix::{Direction, Peer};

/// The program that creates the Python environment.
const PYTHON: &str = "python3";

/// The client that many people have, and its version.
const GRPCURL: (&str, &str) = ("grpcurl", "v1.9.3");

/// The minimum version for the Python library.
const OLDEST_PYTHON: (u32, u32) = (3, 11);

/// The packages that contain the programs of the examples.
const EXAMPLES: &[&str] = &["forward-tunnel", "reverse-tunnel"];

/// The directory with the sources of the peers.
pub(crate) fn sources() -> PathBuf {
    root().join("crates/tunnel-conformance/peers")
}

/// The programs of a run, and the directory of everything that it writes.
#[derive(Debug)]
pub(crate) struct Programs {
    /// The output: programs, logs and reports.
    pub(crate) out: PathBuf,
    /// The directory of the programs that cargo built.
    built: PathBuf,
}

impl Programs {
    /// Finds the directories, from the path of this program, which cargo has built.
    pub(crate) fn find() -> Result<Self> {
        let this = env::current_exe().context("cannot tell where this program is")?;
        let built = this.parent().context("this program is nowhere")?;
        let out = built.parent().unwrap_or(built).join("interop");
        fs::create_dir_all(out.join("logs"))
            .with_context(|| format!("cannot create {}", out.display()))?;
        let built = built.to_path_buf();
        Ok(Self { out, built })
    }

    /// The file for the output of a peer.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.out.join("logs").join(format!("{name}.log"))
    }

    /// Builds what these peers need and is not up to date.
    pub(crate) fn build(&self, peers: &[Peer]) -> Result<()> {
        // Check for missing tools before the slow builds. The Go programs are always needed: gRPC's
        // own cases are Go programs.
        check_go()?;
        if peers.contains(&Peer::Python) {
            check_python()?;
            let requirements = sources().join("python/requirements.txt");
            make_python(&self.python_environment(), &requirements)?;
        }
        if peers.contains(&Peer::Examples) {
            let packages = EXAMPLES.iter().flat_map(|package| ["--package", package]);
            expect_success(cargo().args(["build", "--bins"]).args(packages))?;
        }
        expect_success(cargo().args(["build", "--bins", "--package", "tunnel-cli"]))?;
        self.install_grpcurl()?;
        self.go(&["build", "-o"], "peer-go", ".")?;
        self.go(&["build", "-o"], "grpc-cases", "./official")?;
        self.go(&["test", "-c", "-o"], "battery", "./battery")
    }

    fn go(&self, arguments: &[&str], name: &str, package: &str) -> Result<()> {
        let mut build = Command::new("go");
        build.current_dir(sources().join("go")).args(arguments);
        expect_success(build.arg(self.path(name)).arg(package))
    }

    /// Not a tool of the peer's module: its dependencies would change the versions that are tested.
    fn install_grpcurl(&self) -> Result<()> {
        if self.path(GRPCURL.0).is_file() {
            return Ok(());
        }
        let (name, version) = GRPCURL;
        let package = format!("github.com/fullstorydev/{name}/cmd/{name}@{version}");
        let mut install = Command::new("go");
        install.env("GOBIN", self.out.join("bin"));
        expect_success(install.args(["install", &package]))
    }

    /// The virtual environment of the Python peer.
    fn python_environment(&self) -> PathBuf {
        self.out.join("python-venv")
    }

    /// The Python of the environment.
    pub(crate) fn python(&self) -> PathBuf {
        python_of(&self.python_environment())
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.out.join("bin").join(name);
        path.with_extension(env::consts::EXE_EXTENSION)
    }

    /// The command that starts the bridge of a foreign peer.
    pub(crate) fn bridge(&self, peer: Peer) -> Command {
        if peer != Peer::Python {
            return Command::new(self.path("peer-go"));
        }
        let mut command = Command::new(self.python());
        command.args(["-m", "bridge"]);
        command.env("PYTHONPATH", sources().join("python"));
        // Keep `__pycache__` out of the source directory.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// The command that serves gRPC's own services, or runs one of its cases.
    pub(crate) fn grpc_cases(&self) -> Command {
        Command::new(self.path("grpc-cases"))
    }

    /// The command that starts grpcurl.
    pub(crate) fn grpcurl(&self) -> Command {
        Command::new(self.path(GRPCURL.0))
    }

    /// The command that runs the channel tests of grpchan.
    pub(crate) fn battery(&self) -> Command {
        Command::new(self.path("battery"))
    }

    /// The program `tunnel`.
    pub(crate) fn tunnel(&self) -> PathBuf {
        let path = self.built.join("tunnel");
        path.with_extension(env::consts::EXE_EXTENSION)
    }

    /// The command that starts the client or the server of an example.
    pub(crate) fn example(&self, direction: Direction, role: &str) -> Command {
        let path = self.built.join(format!("{}-tunnel-{role}", direction.id()));
        Command::new(path.with_extension(env::consts::EXE_EXTENSION))
    }
}

/// Fails if Go is missing or too old.
fn check_go() -> Result<()> {
    let go_mod = fs::read_to_string(sources().join("go/go.mod")).context("cannot read go.mod")?;
    let needed = go_mod.lines().find_map(|line| line.strip_prefix("go "));
    let needed = needed.context("go.mod names no version of Go")?.trim();
    let install = format!("install Go {needed} or later (https://go.dev/dl)");
    let Some(installed) = version_of("go", "version") else {
        bail!("go is not installed: {install}");
    };
    let is_new_enough = major_and_minor(&installed) >= major_and_minor(needed);
    ensure!(is_new_enough, "{installed} is too old: {install}");
    Ok(())
}

/// Fails if Python is missing, too old, or cannot create virtual environments.
fn check_python() -> Result<()> {
    let (major, minor) = OLDEST_PYTHON;
    let install = format!(
        "install Python {major}.{minor} or later with its venv module \
         (https://www.python.org/downloads, or apt-get install python3 python3-venv)"
    );
    let Some(installed) = version_of(PYTHON, "--version") else {
        bail!("{PYTHON} is not installed: {install}");
    };
    let is_new_enough = major_and_minor(&installed) >= Some(OLDEST_PYTHON);
    ensure!(is_new_enough, "{installed} is too old: {install}");
    ensure!(
        has_python(),
        "{PYTHON} cannot make virtual environments: {install}"
    );
    Ok(())
}

/// The version that a program prints, or `None` if it is not installed.
pub(crate) fn version_of(program: impl AsRef<Path>, argument: &str) -> Option<String> {
    let mut command = Command::new(program.as_ref());
    let output = command.arg(argument).stdin(Stdio::null()).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(said)
}

/// The first two numbers of a version, as in `go1.26.8` or `Python 3.11.7`.
fn major_and_minor(text: &str) -> Option<(u32, u32)> {
    let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
    let mut parts = digits.split(|c: char| !c.is_ascii_digit());
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::major_and_minor;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        let go = "go version go1.26.8 linux/amd64";
        assert_eq!(major_and_minor(go), Some((1, 26)));
        assert_eq!(major_and_minor("Python 3.11.7"), Some((3, 11)));
        assert_eq!(major_and_minor("1.24.0"), Some((1, 24)));
        assert_eq!(major_and_minor("of late"), None);
    }
}
