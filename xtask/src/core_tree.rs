//! `cargo xtask core-tree`: checks that the small crates have no forbidden dependencies.
//!
//! `tunnel-core` works without tonic and tokio, and the examples `custom-transport` and `web-socket`
//! show that. An accidental dependency would break this promise without failing any test.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use tunnel_process::{cargo, stdout_of};

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
    Rule {
        package: "web-socket",
        // A WebSocket begins as an HTTP/1.1 request, whose types are those of `http`.
        forbidden: &["tonic", "hyper", "h2"],
    },
];

/// Checks every rule and prints each violation.
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
        bail!("there are forbidden dependencies (`cargo tree -e normal -p PACKAGE` shows them)");
    }
    Ok(())
}

/// The names of all crates in the normal dependency tree of a package.
fn dependencies(package: &str) -> Result<BTreeSet<String>> {
    let mut command = cargo();
    command.args(["tree", "--edges", "normal", "--target", "all"]);
    command.args(["--prefix", "none", "--all-features", "--package", package]);
    let tree = stdout_of(&mut command)?;
    Ok(tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect())
}

/// The dependencies that belong to a forbidden family: `tokio` forbids `tokio` itself and every
/// `tokio-*`.
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
