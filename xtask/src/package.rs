//! `cargo xtask package`: builds the Debian package of `tunnel`. `cargo xtask package-test`: tries it under systemd.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tunnel_process::{cargo, expect_success, root, stdout_of};

/// Build the Debian package of the program `tunnel`. Needs cargo-deb.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A program that is built already. Default: a release build.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// Builds the package, and says where it is.
pub(crate) fn run(args: &Args) -> Result<()> {
    println!("{}", build(args)?.display());
    Ok(())
}

/// Builds the package, and tries it in a container that has this machine's files but changes none of them.
pub(crate) fn test(args: &Args) -> Result<()> {
    let is_root = stdout_of(Command::new("id").arg("-u"))?.trim() == "0";
    ensure!(is_root, "only root can boot a container");
    let nspawn = Command::new("systemd-nspawn").arg("--version").output();
    nspawn.context("systemd-nspawn is missing: apt-get install systemd-container")?;
    let package = build(args)?;
    let directory = tempfile::tempdir()?;
    let scripts = root().join("xtask/src/package");
    let mut boot = Command::new("unshare");
    boot.args(["--mount", "bash"])
        .arg(scripts.join("outside.sh"));
    boot.args([package, scripts.join("inside.sh")]);
    let status = boot
        .arg(directory.path())
        .status()
        .context("cannot start unshare")?;
    match status.code() {
        Some(0) => Ok(()),
        // `unshare` itself ends with 1.
        Some(NO_CONTAINER) => not_tried(),
        Some(1) if !can_unshare() => not_tried(),
        _ => bail!("the package does not work: {status}"),
    }
}

/// The package is built and its contents were checked, but systemd cannot be booted in a container here, for example in
/// a container without privileges.
fn not_tried() -> Result<()> {
    eprintln!(
        "=== NOT TRIED: no container can be booted here, so no unit of the package was started"
    );
    Ok(())
}

fn can_unshare() -> bool {
    let probe = Command::new("unshare").args(["--mount", "true"]).status();
    probe.is_ok_and(|status| status.success())
}

/// The exit code of outside.sh where no container can be booted.
const NO_CONTAINER: i32 = 77;

fn build(args: &Args) -> Result<PathBuf> {
    let installed = cargo().args(["deb", "--version"]).output()?;
    ensure!(
        installed.status.success(),
        "cargo-deb is missing: cargo install --locked cargo-deb"
    );
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let target = root().join(target);
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => {
            expect_success(cargo().args(["build", "--release", "--package", "tunnel-cli"]))?;
            target.join("release/tunnel")
        }
    };
    // A target directory of its own, so that the package has this program whatever else was built.
    let staged = target.join("package");
    let (release, packages) = (staged.join("release"), staged.join("debian"));
    for directory in [&release, &packages] {
        let _ = fs::remove_dir_all(directory);
    }
    fs::create_dir_all(release.join("completions"))?;
    let program = release.join("tunnel");
    fs::copy(&binary, &program).with_context(|| format!("no {}", binary.display()))?;
    let man = release.join("man");
    expect_success(Command::new(&program).arg("man").arg(&man))?;
    // Without the time, so that the same program makes the same package.
    expect_success(
        Command::new("gzip")
            .args(["-9", "--no-name", "--recursive"])
            .arg(man),
    )?;
    for shell in ["bash", "zsh", "fish"] {
        let text = stdout_of(Command::new(&program).args(["completions", shell]))?;
        fs::write(release.join(format!("completions/tunnel.{shell}")), text)?;
    }
    let mut command = cargo();
    command.args(["deb", "--no-build", "--package", "tunnel-cli", "--quiet"]);
    // A program that is not for users need not be small.
    command.args(args.binary.iter().map(|_| "--fast"));
    expect_success(command.env("CARGO_TARGET_DIR", &staged))?;
    let built = fs::read_dir(packages)?.next().context("no package")?;
    Ok(built?.path())
}
