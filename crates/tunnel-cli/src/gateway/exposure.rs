//! What a gateway with these settings opens to whom.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::settings::{Name, Settings};

/// Who can reach an address.
fn reach(address: SocketAddr) -> &'static str {
    match address.ip() {
        ip if ip.is_loopback() => "programs of this machine",
        ip if ip.is_unspecified() => "every network of this machine",
        _ => "the network of this address",
    }
}

/// The ways to prove who one is, as a list for people.
fn proofs(
    certificate: Option<(&std::path::Path, Name)>,
    tokens: Option<&std::path::Path>,
    jwt: Option<(&std::path::Path, &str)>,
) -> Vec<String> {
    let certificate = certificate.map(|(ca, name)| {
        let name = match name {
            Name::San => "first DNS name",
            Name::Cn => "common name",
        };
        format!("a certificate of {} (by its {name})", ca.display())
    });
    let tokens = tokens.map(|file| format!("a token of {}", file.display()));
    let jwt =
        jwt.map(|(keys, claim)| format!("a JWT of {} (by its claim {claim:?})", keys.display()));
    certificate.into_iter().chain(tokens).chain(jwt).collect()
}

fn agents(settings: &Settings) -> Vec<String> {
    let mut agents = proofs(
        settings.agents_ca.as_deref().zip(settings.agents_name),
        settings.agents_tokens.as_deref(),
        settings
            .agents_jwt_keys
            .as_deref()
            .zip(settings.agents_jwt_claim.as_deref()),
    );
    if let Some(file) = &settings.enroll_tokens {
        agents.push(format!(
            "a one-time token of {}, for a certificate",
            file.display()
        ));
    }
    agents
}

fn clients(settings: &Settings) -> Vec<String> {
    proofs(
        settings.clients_ca.as_deref().zip(settings.clients_name),
        settings.clients_tokens.as_deref(),
        settings
            .clients_jwt_keys
            .as_deref()
            .zip(settings.clients_jwt_claim.as_deref()),
    )
}

fn any(proofs: &[String], otherwise: &str) -> String {
    match proofs.is_empty() {
        true => otherwise.to_owned(),
        false => proofs.join(", or "),
    }
}

/// The report of `tunnel gateway --check`.
pub(crate) fn report(settings: &Settings) -> String {
    let tls = match settings.tls_cert.is_some() {
        true => "TLS",
        false => "plaintext",
    };
    let access = match &settings.access {
        Some(file) => format!("what {} allows", file.display()),
        None => "every key and method".to_owned(),
    };
    let http = "nothing: it shows metrics and readiness alone".to_owned();
    let listeners = [
        (
            "agents",
            settings.agents_listen,
            tls,
            any(&agents(settings), "nothing: an agent is what it claims"),
            String::new(),
        ),
        (
            "clients",
            settings.clients_listen,
            tls,
            any(&clients(settings), "nothing"),
            access,
        ),
        (
            "admin",
            settings.admin_listen,
            if settings.admin_tls() {
                "TLS"
            } else {
                "plaintext"
            },
            any(
                &proofs(None, settings.admin_tokens.as_deref(), None),
                "nothing",
            ),
            "everything of the admin API".to_owned(),
        ),
        (
            "http",
            settings.http_listen,
            "plaintext",
            http,
            String::new(),
        ),
    ];
    let mut text = String::new();
    for (name, address, tls, proof, may) in listeners {
        let Some(address) = address else { continue };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{name}: {address} ({tls}), reachable by {}",
            reach(address)
        );
        let _ = writeln!(text, "    proof: {proof}");
        if !may.is_empty() {
            let _ = writeln!(text, "    may call: {may}");
        }
    }
    let warnings = warnings(settings);
    for warning in &warnings {
        let _ = writeln!(text, "INSECURE: {warning}");
    }
    if warnings.is_empty() {
        text += "nothing insecure was found\n";
    }
    text
}

/// What is insecure, a sentence each.
pub(crate) fn warnings(settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |when: bool, text: &str| {
        if when {
            warnings.push(text.to_owned());
        }
    };
    let plain = settings.tls_cert.is_none();
    let beyond = |address: Option<SocketAddr>| address.is_some_and(|a| !a.ip().is_loopback());
    warn(
        !settings.agents_prove(),
        "an agent gets the key that it claims (set agents-ca, agents-tokens or agents-jwt-keys)",
    );
    warn(
        !settings.clients_prove(),
        "every client may call every key (set clients-ca, clients-tokens or clients-jwt-keys)",
    );
    warn(
        settings.clients_prove() && settings.access.is_none(),
        "every client that was identified may call every key and method (set access)",
    );
    warn(
        settings.agents_ca.is_some()
            && settings.agents_ca == settings.clients_ca
            && settings.agents_name == settings.clients_name,
        "agents and clients are known by the same name of certificates of the same CA: each can act as the other \
         (set agents-name or clients-name)",
    );
    warn(
        plain && beyond(settings.agents_listen),
        "agents connect in plaintext over a network (set tls-cert and tls-key)",
    );
    warn(
        plain && beyond(settings.clients_listen),
        "clients connect in plaintext over a network (set tls-cert and tls-key)",
    );
    warn(
        settings.admin_tokens.is_none(),
        "every program of this machine may use the admin API (set admin-tokens)",
    );
    warn(
        plain && beyond(settings.admin_listen),
        "the tokens of the admin API cross a network in plaintext (set tls-cert and tls-key)",
    );
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_says_who_may_reach_and_call_what() {
        let defaults = Settings::default().complete(None).expect("legal");
        let text = report(&defaults);
        for part in [
            "agents: 127.0.0.1:7000 (plaintext)",
            "what it claims",
            "every client may call every key",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let secure = Settings {
            clients_listen: "0.0.0.0:1".parse().ok(),
            tls_cert: Some("cert.pem".into()),
            tls_key: Some("key.pem".into()),
            agents_ca: Some("ca.pem".into()),
            clients_tokens: Some("tokens".into()),
            access: Some("access.toml".into()),
            admin_tokens: Some("admins".into()),
            ..Settings::default()
        };
        let text = report(&secure.complete(None).expect("legal"));
        for part in [
            "clients: 0.0.0.0:1 (TLS), reachable by every network",
            "a certificate of ca.pem (by its first DNS name)",
            "what access.toml allows",
            "nothing insecure",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
