//! The files of the Debian package.

use std::path::Path;

use crate::programs::run;

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
        let mut seen = std::collections::BTreeSet::new();
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
