//! The Python peer: its virtual environment, and its code generated from `.proto` files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use tunnel_process::{expect_success, root};

use super::{Launch, Places, major_and_minor, version_of};

/// The program that creates the environment.
const PYTHON: &str = "python3";

/// The minimum version for the Python library.
const OLDEST: (u32, u32) = (3, 11);

/// Fails if Python is missing, too old, or cannot create virtual environments.
pub(super) fn check() -> Result<()> {
    let (major, minor) = OLDEST;
    let install = format!(
        "install Python {major}.{minor} or later with its venv module \
         (https://www.python.org/downloads, or apt-get install python3 python3-venv)"
    );
    let Some(installed) = version_of(PYTHON, "--version") else {
        bail!("{PYTHON} is not installed: {install}");
    };
    if major_and_minor(&installed) < Some(OLDEST) {
        bail!("{installed} is too old: {install}");
    }
    let mut import = Command::new(PYTHON);
    import.args(["-c", "import venv, ensurepip"]);
    let import = import.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !import.is_ok_and(|status| status.success()) {
        bail!("{PYTHON} cannot make virtual environments: {install}");
    }
    Ok(())
}

pub(super) fn set_up(places: &Places) -> Result<Option<Launch>> {
    let requirements = places.peers.join("python/requirements.txt");
    let environment = places.environment();
    if !is_up_to_date(&environment, &requirements) {
        make(&environment, &requirements)?;
    }
    let python = python_of(&environment);
    let generated = places.out.join("python-generated");
    generate(&python, &places.peers, &generated)?;

    let path = std::env::join_paths([&places.peers.join("python"), &generated])
        .context("Python cannot search a path with such a name")?;
    Ok(Some(Launch {
        program: python,
        arguments: ["-m", "interop_peer"].map(Into::into).into(),
        variables: vec![
            ("PYTHONPATH", path),
            // Keep `__pycache__` out of the source directory.
            ("PYTHONDONTWRITEBYTECODE", "1".into()),
        ],
    }))
}

/// The Python of an environment.
pub(crate) fn python_of(environment: &Path) -> PathBuf {
    environment.join(if cfg!(windows) {
        "Scripts/python.exe"
    } else {
        "bin/python"
    })
}

/// Whether the environment was made from these requirements. The last step of [`make`] copies them
/// into the environment.
fn is_up_to_date(environment: &Path, requirements: &Path) -> bool {
    let made_from = fs::read(stamp(environment)).ok();
    made_from.is_some() && made_from == fs::read(requirements).ok()
}

fn stamp(environment: &Path) -> PathBuf {
    environment.join("requirements.txt")
}

/// Recreates the environment.
fn make(environment: &Path, requirements: &Path) -> Result<()> {
    println!("Python: making a virtual environment");
    let mut create = Command::new(PYTHON);
    expect_success(create.args(["-m", "venv", "--clear"]).arg(environment))?;
    let mut install = Command::new(python_of(environment));
    install.args(["-m", "pip", "install", "--quiet"]);
    install.args(["--disable-pip-version-check", "--requirement"]);
    expect_success(install.arg(requirements))?;
    fs::copy(requirements, stamp(environment)).context("cannot mark the environment as made")?;
    Ok(())
}

/// Generates the Python code of both services.
fn generate(python: &Path, peers: &Path, generated: &Path) -> Result<()> {
    fs::create_dir_all(generated)?;
    let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
    // The directory of echo.proto is its root: a Python package named `test`
    // would hide behind the standard library's.
    let echo = root().join("proto/test");
    ensure!(echo.join("echo.proto").is_file(), "there is no echo.proto");
    let mut generate = Command::new(python);
    generate.args(["-m", "grpc_tools.protoc"]);
    generate.arg(flag("proto_path", &peers.join("proto")));
    generate.arg(flag("proto_path", &echo));
    generate.arg(flag("python_out", generated));
    generate.arg(flag("grpc_python_out", generated));
    expect_success(generate.args(["interop.proto", "echo.proto"]))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{is_up_to_date, stamp};

    #[test]
    fn an_environment_is_up_to_date_while_the_requirements_are_the_same() {
        let directory = std::env::temp_dir().join(format!("interop-venv-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let requirements = directory.join("wanted.txt");
        fs::write(&requirements, "x==1").expect("a file");
        assert!(!is_up_to_date(&directory, &requirements));
        fs::copy(&requirements, stamp(&directory)).expect("a copy");
        assert!(is_up_to_date(&directory, &requirements));
        fs::write(&requirements, "x==2").expect("a file");
        assert!(!is_up_to_date(&directory, &requirements));
        fs::remove_dir_all(&directory).expect("it is there");
    }
}
