//! The versions of the languages and libraries of a run.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tunnel_process::root;

use crate::matrix::Peer;
use crate::programs::{Programs, sources, version_of};

/// The Go and Python libraries whose versions are shown, because they affect the bytes on the wire.
/// All other requirements are in `go.mod` and `requirements.txt`.
const SPEAKING: &[&str] = &[
    "github.com/jhump/grpctunnel",
    "google.golang.org/grpc",
    "google.golang.org/protobuf",
    "grpctunnel-py",
    "grpcio",
    "protobuf",
];

/// The versions of one peer.
#[derive(Debug, Serialize)]
pub(crate) struct Versions {
    pub(crate) peer: Peer,
    /// Names and versions, the language first.
    pub(crate) parts: Vec<Part>,
}

/// A name and its version.
#[derive(Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// The versions of some peers.
pub(crate) fn of(peers: &[Peer], programs: &Programs) -> Result<Vec<Versions>> {
    let mut versions = Vec::new();
    for &peer in peers {
        let parts = match peer {
            Peer::Rust => rust()?,
            Peer::Go => go()?,
            Peer::Python => python(programs)?,
            // They have the versions of Rust.
            Peer::Examples => continue,
        };
        versions.push(Versions { peer, parts });
    }
    Ok(versions)
}

/// A line for each peer.
pub(crate) fn describe(versions: &[Versions]) -> Vec<String> {
    let line = |peer: &Versions| {
        let parts = peer.parts.iter();
        let parts: Vec<_> = parts
            .map(|part| format!("{} {}", part.name, part.version))
            .collect();
        format!("{}: {}", peer.peer, parts.join(", "))
    };
    versions.iter().map(line).collect()
}

fn rust() -> Result<Vec<Part>> {
    let lock = read(&root().join("Cargo.lock"))?;
    let compiler = version_of("rustc", "--version").unwrap_or_default();
    Ok(vec![
        Part::new("rustc", second_word(&compiler)),
        Part::new("these crates", env!("CARGO_PKG_VERSION")),
        Part::new("tonic", &locked("tonic", &lock)?),
    ])
}

fn go() -> Result<Vec<Part>> {
    let go_mod = read(&sources().join("go/go.mod"))?;
    let said = version_of("go", "version").unwrap_or_default();
    let go = said.split_whitespace().nth(2).unwrap_or_default();
    let mut parts = vec![Part::new("go", go.trim_start_matches("go"))];
    parts.extend(required(&go_mod));
    Ok(parts)
}

fn python(programs: &Programs) -> Result<Vec<Part>> {
    let requirements = read(&sources().join("python/requirements.txt"))?;
    let said = version_of(programs.python(), "--version").unwrap_or_default();
    let mut parts = vec![Part::new("python", second_word(&said))];
    parts.extend(pinned(&requirements));
    Ok(parts)
}

/// The direct requirements in a `go.mod`.
fn required(go_mod: &str) -> Vec<Part> {
    let requirements = go_mod.lines().filter(|line| !line.contains("// indirect"));
    let parts = requirements.filter_map(|line| {
        let line = line.trim();
        let line = line.strip_prefix("require ").unwrap_or(line);
        let (name, version) = line.split_once(" v")?;
        Some(Part::new(name, version))
    });
    parts.filter(Part::speaks).collect()
}

/// The pinned packages in a `requirements.txt`.
fn pinned(requirements: &str) -> Vec<Part> {
    let parts = requirements.lines().filter_map(|line| {
        let (name, version) = line.trim().split_once("==")?;
        Some(Part::new(name, version))
    });
    parts.filter(Part::speaks).collect()
}

/// The version of a package in a `Cargo.lock`.
fn locked(name: &str, lock: &str) -> Result<String> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        version: String,
    }
    let lock: Lock = toml::from_str(lock).context("Cargo.lock cannot be understood")?;
    let package = lock.package.into_iter().find(|each| each.name == name);
    let package = package.with_context(|| format!("there is no {name} in Cargo.lock"))?;
    Ok(package.version)
}

fn second_word(text: &str) -> &str {
    text.split_whitespace().nth(1).unwrap_or_default()
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

impl Part {
    fn new(name: &str, version: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
        }
    }

    fn speaks(&self) -> bool {
        SPEAKING.contains(&self.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::{Part, locked, pinned, required};

    #[test]
    fn of_a_go_module_the_libraries_that_speak_are_told() {
        let go_mod = "module peer\n\ngo 1.24.0\n\nrequire (\n\tgoogle.golang.org/grpc v1.2.3\n\t\
                      example.org/silent v0.1.0\n\tgoogle.golang.org/protobuf v1.0.0 // indirect\n)\n";
        let expected = [Part::new("google.golang.org/grpc", "1.2.3")];
        assert_eq!(required(go_mod), expected);
        let one = "require google.golang.org/grpc v1.2.3\n";
        assert_eq!(required(one), expected);
    }

    #[test]
    fn of_the_python_packages_those_that_speak_are_told() {
        let requirements = "# The peer.\ngrpcio==1.0\nsetuptools==2\n";
        assert_eq!(pinned(requirements), [Part::new("grpcio", "1.0")]);
    }

    #[test]
    fn a_lock_file_knows_the_version_of_a_package() {
        let lock = "version = 4\n[[package]]\nname = \"tonic\"\nversion = \"0.14.9\"\n";
        assert_eq!(locked("tonic", lock).expect("it is there"), "0.14.9");
        assert!(locked("toxic", lock).is_err());
    }
}
