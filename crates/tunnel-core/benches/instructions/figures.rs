//! The measured figures, and the recorded ones.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::process::Command;

use serde::Deserialize;

use crate::support::scenario::Scenario;

/// The file of recorded figures.
pub(crate) const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.toml");

/// The tolerance for instructions: 3 %.
const TOLERANCE: f64 = 1.03;

/// The figures of one unit of a scenario.
#[derive(Clone, Copy, Deserialize)]
pub(crate) struct Figures {
    /// `None` without valgrind.
    pub(crate) instructions: Option<f64>,
    pub(crate) allocations: f64,
    pub(crate) bytes: f64,
}

impl Figures {
    /// How these are worse than the recorded ones.
    pub(crate) fn worse_than(&self, before: Option<&Self>) -> impl Iterator<Item = String> {
        let Some(before) = before else {
            return vec!["it is not recorded".to_owned()].into_iter();
        };
        let mut worse = Vec::new();
        if let (Some(now), Some(was)) = (self.instructions, before.instructions)
            && now > was * TOLERANCE
        {
            worse.push(format!("{now:.0} instructions, recorded {was:.0}"));
        }
        let (now, was) = (self.allocations, before.allocations);
        // Two decimal places are recorded, so a table that grows once does not count.
        if now - was > 0.01 {
            worse.push(format!("{now:.2} allocations, recorded {was:.2}"));
        }
        worse.into_iter()
    }
}

/// The compiler that the figures belong to.
#[derive(Debug, PartialEq, Deserialize)]
pub(crate) struct Compiler {
    /// Its version and commit.
    rustc: String,
    /// The platform it runs on and builds for.
    host: String,
}

impl Compiler {
    /// The compiler that cargo uses here, if `rustc -vV` works.
    pub(crate) fn present() -> Option<Self> {
        let output = Command::new("rustc").arg("-vV").output().ok()?;
        let said = String::from_utf8(output.stdout).ok()?;
        let host = said.lines().find_map(|line| line.strip_prefix("host: "))?;
        Some(Self {
            rustc: said.lines().next()?.to_owned(),
            host: host.to_owned(),
        })
    }
}

/// The contents of the file.
#[derive(Deserialize)]
pub(crate) struct Recorded {
    compiler: Compiler,
    scenarios: BTreeMap<String, Figures>,
}

impl Recorded {
    pub(crate) fn load() -> Result<Self, String> {
        let text = fs::read_to_string(PATH).map_err(|e| format!("{PATH}: {e}"))?;
        toml::from_str(&text).map_err(|e| format!("{PATH}: {e}"))
    }

    /// Whether the figures are those of a compiler.
    pub(crate) fn is_of(&self, compiler: Option<&Compiler>) -> bool {
        compiler == Some(&self.compiler)
    }

    pub(crate) fn difference(&self, present: &Option<Compiler>) -> String {
        let Compiler { rustc, host } = &self.compiler;
        let here = match present {
            Some(Compiler { rustc, host }) => format!("{rustc} on {host}"),
            None => "unknown".to_owned(),
        };
        format!("the figures were recorded with {rustc} on {host}, this compiler is {here}")
    }

    pub(crate) fn of(&self, scenario: &Scenario) -> Option<&Figures> {
        self.scenarios.get(scenario.name)
    }
}

/// Writes the file.
pub(crate) fn save(compiler: &Compiler, all: &[(&str, Figures)]) -> Result<(), String> {
    let mut text = String::from(
        "# What one unit of each scenario takes at both ends together; written by\n\
         # cargo bench -p tunnel-core --bench instructions -- --record\n\n",
    );
    let Compiler { rustc, host } = compiler;
    text += &format!("[compiler]\nrustc = {rustc:?}\nhost = {host:?}\n\n[scenarios]\n");
    for (name, figures) in all {
        let Figures {
            instructions,
            allocations,
            bytes,
        } = figures;
        let instructions = instructions.unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{name:?} = {{ instructions = {instructions:.1}, \
             allocations = {allocations:.2}, bytes = {bytes:.1} }}"
        );
    }
    fs::write(PATH, text).map_err(|e| format!("{PATH}: {e}"))
}
