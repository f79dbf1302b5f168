//! Virtual environments of Python.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::command::expect_success;

/// The program that makes virtual environments.
const PYTHON: &str = "python3";

/// Whether this machine has Python with what makes virtual environments.
pub fn has_python() -> bool {
    let mut import = Command::new(PYTHON);
    import.args(["-c", "import venv, ensurepip"]);
    let import = import.stdin(Stdio::null()).stdout(Stdio::null());
    let status = import.stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// The Python of a virtual environment.
pub fn python_of(environment: &Path) -> PathBuf {
    environment.join(if cfg!(windows) {
        "Scripts/python.exe"
    } else {
        "bin/python"
    })
}

/// Makes a virtual environment with the packages of a file, unless it is there and was made from the same.
///
/// # Errors
///
/// If it cannot be made, or the packages cannot be had.
pub fn make_python(environment: &Path, requirements: &Path) -> Result<()> {
    let made_from = environment.join("requirements.txt");
    let wanted = fs::read(requirements).context("cannot read the Python requirements")?;
    if fs::read(&made_from).is_ok_and(|made_from| made_from == wanted) {
        return Ok(());
    }
    println!("Python: making a virtual environment, which takes a minute");
    let mut create = Command::new(PYTHON);
    expect_success(create.args(["-m", "venv", "--clear"]).arg(environment))?;
    let mut install = Command::new(python_of(environment));
    install.args(["-m", "pip", "install", "--quiet"]);
    install.args(["--disable-pip-version-check", "--requirement"]);
    expect_success(install.arg(requirements))?;
    fs::write(made_from, wanted).context("cannot mark the environment as made")
}
