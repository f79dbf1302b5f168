//! The files of the Debian package.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::programs::{run, tunnel};

fn file(name: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    directory.join(name).display().to_string()
}

#[tokio::test]
async fn the_configuration_of_the_package_is_legal_and_open_to_this_machine_alone() {
    let (code, report, errors) =
        run(&["gateway", "--config", &file("gateway.toml"), "--check"]).await;
    assert_eq!(code, 0, "{errors}");
    for who in [
        "agents: 127.0.0.1:7000",
        "clients: 127.0.0.1:7001",
        "admin: 127.0.0.1:7002",
        "http: 127.0.0.1:7003",
    ] {
        assert!(report.contains(who), "{report}");
    }
    let (code, _, errors) =
        run(&["agent", "--config", &file("agent.toml"), "--print-config"]).await;
    assert_eq!(code, 0, "{errors}");
}

#[tokio::test]
async fn what_is_commented_in_the_configuration_is_known() {
    for (command, name) in [("gateway", "gateway.toml"), ("agent", "agent.toml")] {
        let text = std::fs::read_to_string(file(name)).expect("a file");
        let all = text.lines().map(|line| match line.strip_prefix("# ") {
            Some(setting) if setting.contains(" = ") => setting,
            _ => line,
        });
        // A setting that stands twice is an alternative.
        let mut seen = BTreeSet::new();
        let all: Vec<_> = all
            .filter(|line| line.starts_with('#') || seen.insert(line.split(' ').next()))
            .collect();
        let settings = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(settings.path(), all.join("\n")).expect("written");
        let path = settings.path().display().to_string();
        let (_, _, errors) = run(&[command, "--config", &path, "--print-config"]).await;
        // The files that they name are not here, which is another mistake.
        assert!(!errors.contains("unknown field"), "{errors}");
    }
}

#[tokio::test]
async fn shells_get_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, text, errors) = run(&["completions", shell]).await;
        assert_eq!(code, 0, "{errors}");
        assert!(
            text.contains("gateway") && text.contains("agents-listen"),
            "{shell}"
        );
    }
}

/// The files that deploy a fleet, and the page about them.
const DEPLOYMENTS: [&str; 3] = ["compose.yaml", "kubernetes.yaml", "../../../docs/DEPLOY.md"];

/// The words after `tunnel`, of each command at the beginning of a line or comment, or of /usr/bin/tunnel anywhere.
fn commands(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter_map(|line| {
        let arguments = match line.split_once("/usr/bin/tunnel") {
            Some((_, arguments)) => arguments,
            None => line
                .trim_start_matches(['#', ' '])
                .strip_prefix("tunnel ")?,
        };
        let end = arguments.find([']', ';', '>']).unwrap_or(arguments.len());
        let words = arguments[..end].split([' ', ',', '"', '\'']);
        Some(words.filter(|word| !word.is_empty()).collect())
    })
}

/// Each variable with its value: `NAME: VALUE`, or `{ name: NAME, value: VALUE }`. The last value of a name counts.
fn variables(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines().map(str::trim);
    let variables = lines.filter_map(|line| {
        let line = line.trim_start_matches("- { name: ").trim_end_matches(" }");
        let (name, value) = line
            .split_once(", value: ")
            .or_else(|| line.split_once(": "))?;
        name.starts_with("TUNNEL_")
            .then(|| (name, value.trim_matches('"')))
    });
    variables.collect()
}

#[tokio::test]
async fn commands_and_variables_of_deployments_exist() {
    let mut help = String::new();
    for command in ["gateway", "agent", "call"] {
        help += &run(&[command, "--help"]).await.1;
    }
    let mut unknown = BTreeSet::new();
    for name in DEPLOYMENTS {
        let text = std::fs::read_to_string(file(name)).expect("a file");
        let words = text.split(|c: char| !c.is_ascii_uppercase() && c != '_');
        let variables = words.filter(|word| word.starts_with("TUNNEL_"));
        let absent = variables.filter(|name| !help.contains(&format!("[env: {name}=")));
        unknown.extend(absent.map(str::to_owned));
        assert_ne!(commands(&text).count(), 0, "no command in {name}");
        for mut command in commands(&text) {
            command.push("--help");
            let (code, _, errors) = run(&command).await;
            if code != 0 {
                unknown.insert(errors);
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn gateways_of_deployments_accept_their_variables() {
    for name in &DEPLOYMENTS[..2] {
        let text = std::fs::read_to_string(file(name)).expect("a file");
        let variables = variables(&text);
        assert!(variables.contains_key("TUNNEL_ETCD"), "{variables:?}");
        // It reads no files.
        let mut gateway = tunnel(&["gateway", "--print-config"]);
        let output = gateway
            .envs(&variables)
            .output()
            .expect("the program starts");
        assert!(output.status.success(), "{name}: {output:?}");
    }
}
