//! Builds the peers, and reports which tools are missing.

mod go;
pub(crate) mod python;
mod rust;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use tunnel_process::{root, stdout_of};

use crate::matrix::{Cases, Direction, Family, Peer};

/// The directories of sources and outputs.
pub(crate) struct Places {
    /// The sources of the peers.
    pub(crate) peers: PathBuf,
    /// The output: programs, logs and reports.
    pub(crate) out: PathBuf,
    /// The directory of the programs that cargo built.
    pub(crate) programs: PathBuf,
}

/// The start commands of the peers.
pub(crate) struct Programs {
    peers: BTreeMap<Peer, Launch>,
    examples: PathBuf,
}

/// A program with its arguments and environment.
pub(crate) struct Launch {
    program: PathBuf,
    arguments: Vec<OsString>,
    variables: Vec<(&'static str, OsString)>,
}

impl Places {
    /// Finds the directories from the path of this program, which cargo has built.
    pub(crate) fn find() -> Result<Self> {
        let this = std::env::current_exe().context("cannot tell where this program is")?;
        let programs = this.parent().context("this program is nowhere")?;
        let target = programs.parent().unwrap_or(programs);
        let out = target.join("interop");
        fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
        Ok(Self {
            peers: root().join("crates/tunnel-conformance/peers"),
            out,
            programs: programs.to_path_buf(),
        })
    }

    /// The virtual environment of the Python peer.
    pub(crate) fn environment(&self) -> PathBuf {
        self.out.join("python-venv")
    }
}

impl Programs {
    /// Builds the wanted peers that are not up to date.
    pub(crate) fn set_up(places: &Places, wanted: &[Peer]) -> Result<Self> {
        // Check for missing tools before the slow builds.
        for peer in wanted {
            match peer {
                Peer::Go | Peer::GrpcGo => go::check(places)?,
                Peer::Python => python::check()?,
                Peer::Rust | Peer::Examples | Peer::GrpcRust => {}
            }
        }
        let mut peers = BTreeMap::new();
        for &peer in wanted {
            let set_up = match peer {
                Peer::Rust => rust::set_up_peer,
                Peer::GrpcRust => rust::set_up_grpc,
                Peer::Go => go::set_up_peer,
                Peer::GrpcGo => go::set_up_grpc,
                Peer::Python => python::set_up,
                Peer::Examples => rust::set_up_examples,
            };
            let start = Instant::now();
            let launch = set_up(places).with_context(|| format!("{peer}: cannot be set up"))?;
            println!("{peer}: ready after {:.1} s", start.elapsed().as_secs_f64());
            peers.extend(launch.map(|launch| (peer, launch)));
        }
        Ok(Self {
            peers,
            examples: places.programs.clone(),
        })
    }

    /// The cases of each family. It is an error if the peers of a family have different cases.
    pub(crate) fn cases(&self) -> Result<Cases> {
        let mut known: BTreeMap<Family, (Peer, Vec<String>)> = BTreeMap::new();
        for (&peer, launch) in &self.peers {
            let listed = stdout_of(launch.command().arg("cases"))?;
            let cases: Vec<_> = listed.lines().map(str::to_owned).collect();
            ensure!(!cases.is_empty(), "the {peer} peer knows no cases");
            if let Some((other, others)) = known.get(&peer.family()) {
                same_cases((*other, others), (peer, &cases))?;
            }
            known.entry(peer.family()).or_insert((peer, cases));
        }
        ensure!(!known.is_empty(), "there is no peer to ask for its cases");
        let cases = known.into_iter();
        Ok(cases.map(|(family, (_, cases))| (family, cases)).collect())
    }

    /// The command that starts a peer.
    pub(crate) fn peer(&self, peer: Peer) -> Result<Command> {
        let launch = self.peers.get(&peer);
        let launch = launch.with_context(|| format!("the {peer} peer was not set up"))?;
        Ok(launch.command())
    }

    /// The command that starts the client or the server of an example.
    pub(crate) fn example(&self, direction: Direction, role: &str) -> Command {
        let name = format!("{}-tunnel-{role}", direction.id());
        let path = self.examples.join(name);
        Command::new(path.with_extension(std::env::consts::EXE_EXTENSION))
    }
}

/// Fails if one of two peers has cases that the other lacks.
fn same_cases((one, ones): (Peer, &[String]), (other, others): (Peer, &[String])) -> Result<()> {
    let lacking = |these: &[String], those: &[String]| {
        let lacking: Vec<_> = these.iter().filter(|case| !those.contains(case)).collect();
        lacking.into_iter().cloned().collect::<Vec<_>>().join(", ")
    };
    for (whose, cases, who, lack) in [(one, ones, other, others), (other, others, one, ones)] {
        let missing = lacking(cases, lack);
        if !missing.is_empty() {
            bail!("the {who} peer lacks cases that the {whose} peer has: {missing}");
        }
    }
    Ok(())
}

impl Launch {
    fn of(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            variables: Vec::new(),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
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
    use super::{major_and_minor, same_cases};
    use crate::matrix::Peer;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        let go = "go version go1.26.8 linux/amd64";
        assert_eq!(major_and_minor(go), Some((1, 26)));
        assert_eq!(major_and_minor("Python 3.11.7"), Some((3, 11)));
        assert_eq!(major_and_minor("1.24.0"), Some((1, 24)));
        assert_eq!(major_and_minor("of late"), None);
    }

    #[test]
    fn a_case_that_one_peer_lacks_is_an_error_whichever_it_is() {
        let (few, all) = (["a"].map(str::to_owned), ["b", "a"].map(str::to_owned));
        assert!(same_cases((Peer::Go, &all), (Peer::Rust, &all)).is_ok());
        for (one, other) in [(&few[..], &all[..]), (&all, &few)] {
            let error = same_cases((Peer::Go, one), (Peer::Rust, other));
            let message = error.expect_err("one lacks a case").to_string();
            assert!(message.ends_with(": b"), "{message}");
        }
    }
}
