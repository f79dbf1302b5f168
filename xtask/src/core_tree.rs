//! `cargo xtask core-tree`: the crates that must stay small still are.
//!
//! `tunnel-core` is embedded in transports that have nothing to do with tonic
//! or tokio, and the `custom-transport` example is the proof of it. A
//! dependency that slips into either would break that promise unnoticed.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use crate::run::{self, cargo};

/// A package and the families of crates that it must never depend on.
struct Rule {
    package: &'static str,
    forbidden: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule {
        package: "tunnel-core",
        forbidden: &["tokio", "tonic", "http", "hyper", "h2", "futures"],
    },
    Rule {
        package: "custom-transport",
        forbidden: &["tonic", "http", "hyper", "h2"],
    },
];

/// Checks every rule, and reports all that are broken.
pub(crate) fn run() -> Result<()> {
    let mut broken = false;
    for rule in RULES {
        let found = intruders(rule.forbidden, &dependencies(rule.package)?);
        if found.is_empty() {
            println!(
                "{} depends on none of: {}",
                rule.package,
                rule.forbidden.join(", ")
            );
        } else {
            broken = true;
            println!("{} must not depend on: {}", rule.package, found.join(", "));
        }
    }
    if broken {
        bail!("a dependency tree holds what it must not (`cargo tree -e normal -p PACKAGE`)");
    }
    Ok(())
}

/// The names of all crates in the normal dependency tree of a package.
fn dependencies(package: &str) -> Result<BTreeSet<String>> {
    let mut command = cargo();
    command.args(["tree", "--edges", "normal", "--target", "all"]);
    command.args(["--prefix", "none", "--all-features", "--package", package]);
    let tree = run::stdout_of(&mut command)?;
    Ok(tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect())
}

/// The dependencies that belong to a forbidden family: the crate itself, or one
/// named after it, as `tokio-util` is.
fn intruders(forbidden: &[&str], dependencies: &BTreeSet<String>) -> Vec<String> {
    let belongs = |name: &str, family: &str| {
        name.strip_prefix(family)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
    };
    dependencies
        .iter()
        .filter(|name| forbidden.iter().any(|family| belongs(name, family)))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::intruders;

    #[test]
    fn whole_families_are_recognised_and_nothing_else() {
        let names = ["bytes", "futures-core", "h2", "httparse", "tokio"];
        let dependencies = names.map(str::to_owned).into();
        assert_eq!(
            intruders(&["tokio", "http", "h2", "futures"], &dependencies),
            ["futures-core", "h2", "tokio"]
        );
    }
}
