//! A step of `cargo xtask lint`: the files that deploy `tunnel` are what Docker, Compose, Kubernetes and HAProxy expect.
//!
//! The variables and commands in these files are checked by the tests of `tunnel-cli`.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use tunnel_process::{expect_success, has_python, make_python, python_of, root};

const MANIFESTS: [&str; 2] = ["kubernetes.yaml", "kubernetes-etcd.yaml"];

/// The oldest version in the head of `kubernetes.yaml`, and the newest that the validator knows.
const KUBERNETES: [&str; 2] = ["1.30", "1.37"];

/// Kubernetes' own schemas do not say what belongs together: budgets, services and policies with pods.
const KUBE_SCORE: &str = "github.com/zegl/kube-score/cmd/kube-score@v1.20.0";

/// The manifests spread pods by topology, limit no CPU, and leave images and local disks to the cluster.
const NOT_SCORED: [&str; 3] = [
    "container-image-pull-policy",
    "container-ephemeral-storage-request-and-limit",
    "statefulset-has-host-podantiaffinity",
];

/// Checks all files. Without Python, Go or HAProxy it fails in CI, and only warns elsewhere.
pub(crate) fn run() -> Result<()> {
    let installed = [
        ("python3 with venv", has_python()),
        ("go", is_there("go", "version")),
        ("haproxy", is_there(haproxy(), "-v")),
    ];
    let missing: Vec<_> = installed.iter().filter(|(_, there)| !there).collect();
    if let Some((program, _)) = missing.first() {
        if env::var_os("CI").is_some() {
            bail!("{program} is missing");
        }
        println!("WARNING: the files for a deployment are NOT checked: {program} is missing");
        return Ok(());
    }
    let environment = root().join("target/deployment");
    make_python(
        &environment,
        &root().join("xtask/src/deployment/requirements.txt"),
    )?;
    let tool = |name: &str| packaging(&python_of(&environment).with_file_name(name));

    expect_success(tool("hadolint").arg("Dockerfile"))?;
    let compose = ["--builtin-schema", "vendor.compose-spec", "compose.yaml"];
    expect_success(tool("check-jsonschema").args(compose))?;
    for version in KUBERNETES {
        let strict = ["--strict", "--quiet", "--kubernetes-version", version];
        expect_success(tool("kubernetes-validate").args(strict).args(MANIFESTS))?;
    }
    let mut score = packaging("go".as_ref());
    score.args(["run", KUBE_SCORE, "score"]);
    score.arg("--ignore-container-cpu-limit");
    score.args(NOT_SCORED.map(|test| format!("--ignore-test={test}")));
    expect_success(score.args(MANIFESTS))?;
    // It warns that it cannot resolve the gateways: their names are known in Compose's network alone.
    expect_success(packaging(haproxy().as_ref()).args(["-c", "-f", "haproxy.cfg"]))
}

/// A command in the directory of the files.
fn packaging(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root().join("crates/tunnel-cli/packaging"));
    command
}

/// Debian's directory for it is often not on the search path.
fn haproxy() -> &'static str {
    match Path::new("/usr/sbin/haproxy").is_file() {
        true => "/usr/sbin/haproxy",
        false => "haproxy",
    }
}

fn is_there(program: &str, version: &str) -> bool {
    let output = Command::new(program).arg(version).output();
    output.is_ok_and(|output| output.status.success())
}
