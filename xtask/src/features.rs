//! A step of `cargo xtask lint`: each library compiles, without warnings, with the sets of its features.
//!
//! Every feature alone, and every set in which the codecs of compression are all there or all absent: one is like the
//! other.

use std::env;
use std::process::Stdio;

use anyhow::{Result, bail};
use tunnel_process::{cargo, expect_success};

/// Libraries, and how their sets of features are cut down.
struct Libraries {
    packages: &'static [&'static str],
    /// For the sets of several features alone.
    groups: &'static [&'static str],
    options: &'static [&'static str],
}

const LIBRARIES: &[Libraries] = &[
    Libraries {
        packages: &["tunnel-proto", "tunnel-core"],
        groups: &[],
        options: &[],
    },
    Libraries {
        packages: &["tunnel-tonic"],
        groups: &[CODECS],
        options: &[],
    },
    // The roots belong to tonic alone, and one provider of cryptography is like the other.
    Libraries {
        packages: &["tunnel-server"],
        groups: &[CODECS],
        options: &[ROOTS, PROVIDERS],
    },
    // Lookups do not meet metrics.
    Libraries {
        packages: &["tunnel-client"],
        groups: &[CODECS, "--group-features=dns,metrics"],
        options: &["--exclude-features=_tls-any", ROOTS, PROVIDERS],
    },
    Libraries {
        packages: &["tunnel-fleet"],
        groups: &[],
        options: &[PROVIDERS],
    },
];

const ROOTS: &str = "--group-features=tls-native-roots,tls-webpki-roots";

const PROVIDERS: &str = "--mutually-exclusive-features=tls-ring,tls-aws-lc";

const CODECS: &str = "--group-features=deflate,gzip,zstd";

const MISSING: &str = "cargo-hack is missing: cargo install --locked cargo-hack";

/// Checks every set of features. Without cargo-hack it fails in CI, and only warns elsewhere.
pub(crate) fn run() -> Result<()> {
    if !has_cargo_hack() {
        if env::var_os("CI").is_some() {
            bail!("{MISSING}");
        }
        println!("WARNING: the sets of features are NOT checked. {MISSING}");
        return Ok(());
    }
    let both = |libraries| [(libraries, false), (libraries, true)];
    for (libraries, alone) in LIBRARIES.iter().flat_map(both) {
        let mut command = cargo();
        command.args(["hack", "clippy", "--feature-powerset"]);
        command.args(libraries.options);
        match alone {
            true => command.arg("--depth=1"),
            false => command.args(libraries.groups),
        };
        for package in libraries.packages {
            command.args(["-p", package]);
        }
        command.args(["--", "-D", "warnings"]);
        expect_success(&mut command)?;
    }
    Ok(())
}

fn has_cargo_hack() -> bool {
    let mut command = cargo();
    command.args(["hack", "--version"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
