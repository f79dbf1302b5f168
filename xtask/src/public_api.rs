//! `cargo xtask public-api`: writes the public API of each library crate to `docs/api`, for reviews.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use tunnel_process::{cargo, root, stdout_of};

/// Write the public API of each library crate to a file, for reviews.
///
/// Needs cargo-public-api and a nightly toolchain, whose rustdoc writes JSON.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only compare: fail if a file is out of date.
    #[arg(long)]
    check: bool,
}

const CRATES: &[&str] = &[
    "tunnel-proto",
    "tunnel-core",
    "tunnel-tonic",
    "tunnel-server",
    "tunnel-client",
];

/// Writes or compares the file of each crate.
pub(crate) fn run(args: &Args) -> Result<()> {
    require_tool()?;
    let directory = root().join("docs/api");
    fs::create_dir_all(&directory)?;
    let mut outdated = Vec::new();
    for name in CRATES {
        let file = directory.join(format!("{name}.txt"));
        let api = public_api(name)?;
        if fs::read_to_string(&file).is_ok_and(|before| before == api) {
            continue;
        }
        if args.check {
            show_difference(&file, &api)?;
            outdated.push(*name);
        } else {
            fs::write(&file, api).with_context(|| format!("cannot write {}", file.display()))?;
            println!("wrote docs/api/{name}.txt");
        }
    }
    if !outdated.is_empty() {
        let names = outdated.join(", ");
        bail!("docs/api is out of date for {names}: run `cargo xtask public-api`");
    }
    Ok(())
}

/// The public items of a crate with all features, a line each, without derived and blanket impls.
fn public_api(name: &str) -> Result<String> {
    let mut command = cargo();
    command.args(["public-api", "--package", name, "--all-features", "-sss"]);
    command.args(["--color", "never"]);
    // Apart from the other builds, which have another compiler.
    command.env("CARGO_TARGET_DIR", "target/public-api");
    stdout_of(&mut command)
}

fn require_tool() -> Result<()> {
    let search = env::var_os("PATH").unwrap_or_default();
    let program = format!("cargo-public-api{}", env::consts::EXE_SUFFIX);
    let home = env::var_os("CARGO_HOME").map(|home| Path::new(&home).join("bin"));
    if env::split_paths(&search)
        .chain(home)
        .any(|path| path.join(&program).is_file())
    {
        return Ok(());
    }
    bail!(
        "cargo-public-api is missing: cargo install --locked cargo-public-api, and \
         rustup toolchain install nightly --profile minimal"
    )
}

/// Prints what has changed.
fn show_difference(before: &Path, now: &str) -> Result<()> {
    let after = root()
        .join("target/public-api")
        .join(before.file_name().unwrap_or_default());
    fs::write(&after, now)?;
    // It exits with 1 if the files differ.
    let mut diff = Command::new("diff");
    diff.arg("--unified=0").arg(before).arg(&after).status()?;
    Ok(())
}
