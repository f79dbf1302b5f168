//! Users, passwords and certificates.

use std::path::Path;
use std::time::Duration;

use tonic::transport::ClientTlsConfig;
use tunnel_conformance::Authority;
use tunnel_fleet::directory::{Directory, DirectoryError, EtcdDirectory, Transaction, Update};

use super::Server;
use crate::cases::{put, put_with, write};
use crate::guarded;
use crate::watched::{Watched, entries};

/// A server with a user "gate", password "secret", for everything under "k/".
fn with_users() -> Option<Server> {
    let server = Server::start(&[])?;
    let commands = [
        "user add root:root",
        "user grant-role root root",
        "role add gates",
        "role grant-permission gates --prefix=true readwrite k/",
        "user add gate:secret",
        "user grant-role gate gates",
    ];
    // etcd 3.4 has no role "root" before somebody adds it.
    server.try_control(&["role", "add", "root"]);
    for command in commands {
        server.control(&command.split(' ').collect::<Vec<_>>());
    }
    server.control(&["auth", "enable"]);
    Some(server)
}

fn as_user(server: &Server, name: &str, password: &str) -> EtcdDirectory {
    let directory = server.builder().user(name, password).build();
    directory.expect("the settings are valid")
}

/// Commits until it is denied, and returns why.
async fn denied(directory: &EtcdDirectory, key: &str) -> String {
    loop {
        let transaction = Transaction {
            conditions: Vec::new(),
            writes: vec![put(key, "1")],
        };
        match directory.commit(transaction).await {
            Err(DirectoryError::Denied(text)) => return text,
            // A certificate is refused after the handshake. The connection may be gone before one reads why.
            Err(DirectoryError::Unavailable(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_comes_in_with_its_password_and_for_its_keys_only() {
    let Some(server) = with_users() else {
        return;
    };
    guarded(async {
        let gate = as_user(&server, "gate", "secret");
        let mut watched = Watched::with_snapshot(&gate, "k/").await;
        write(&gate, [put("k/a", "1")]).await;
        watched.until_value("k/a", "1").await;
        let lease = gate.grant(Duration::from_secs(60)).await.expect("a lease");
        write(&gate, [put_with("k/b", "1", lease)]).await;
        assert_eq!(gate.renew(lease).await, Ok(true));
        assert_eq!(gate.revoke(lease).await, Ok(()));
        watched.until(|watched| watched.changes.len() == 3).await;
        assert_eq!(watched.keys(), ["k/a"]);

        let text = denied(&gate, "other/a").await;
        assert!(text.contains("permission denied"), "{text}");
        let mut watched = Watched::new(&gate, "other/");
        let update = watched.next().await;
        let is_denied = matches!(update, Update::Lost(DirectoryError::Denied(_)));
        assert!(is_denied, "{update:?}");
        let text = denied(&as_user(&server, "gate", "wrong"), "k/a").await;
        assert!(text.contains("password"), "{text}");
        let text = denied(&server.directory(), "k/a").await;
        assert!(text.contains("user name is empty"), "{text}");
    })
    .await;
}

/// Tokens live in etcd's memory, and end after five minutes without use.
#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_token_is_renewed() {
    let Some(mut server) = with_users() else {
        return;
    };
    guarded(async {
        let gate = as_user(&server, "gate", "secret");
        let mut watched = Watched::with_snapshot(&gate, "k/").await;
        for round in 0..3 {
            write(&gate, [put("k/a", round.to_string())]).await;
            watched.until_value("k/a", &round.to_string()).await;
            server.kill();
            watched.until_lost().await;
            server.run();
        }
        watched.until(|watched| !watched.is_lost).await;
        write(&gate, [put("k/a", "end")]).await;
        watched.until_value("k/a", "end").await;
        assert_eq!(watched.snapshots, 1);
        // A changed permission makes all tokens old.
        let root = ["--user=root:root", "user", "add", "other:other"];
        server.control(&root);
        write(&gate, [put("k/a", "2")]).await;
        watched.until_value("k/a", "2").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_not_used_where_there_are_no_users_and_is_when_there_are() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    guarded(async {
        let root = as_user(&server, "root", "root");
        write(&root, [put("k/a", "1")]).await;
        server.try_control(&["role", "add", "root"]);
        server.control(&["user", "add", "root:root"]);
        server.control(&["user", "grant-role", "root", "root"]);
        server.control(&["auth", "enable"]);
        write(&root, [put("k/a", "2")]).await;
        assert_eq!(entries(&root, "k/").await["k/a"], "2");
    })
    .await;
}

/// The options of a server that asks clients for certificates.
fn options(authority: &Authority, files: &Path) -> [String; 4] {
    let (certificate, key) = authority.issue("127.0.0.1");
    let option = |name: &str, text: &str| {
        let file = files.join(name);
        std::fs::write(&file, text).expect("it is written");
        format!("--{name}={}", file.display())
    };
    [
        option("cert-file", &certificate),
        option("key-file", &key),
        option("trusted-ca-file", &authority.pem()),
        "--client-cert-auth".to_owned(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tls_both_sides_show_certificates() {
    let files = tempfile::tempdir().expect("a directory");
    let authority = Authority::new();
    let options = options(&authority, files.path());
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let Some(server) = Server::start_with("https", &options) else {
        return;
    };
    guarded(async {
        let with = |tls| {
            let directory = server.builder().tls(tls).build();
            directory.expect("the settings are valid")
        };
        let trusting = ClientTlsConfig::new().ca_certificate(authority.certificate());
        let mutual = trusting.clone().identity(authority.identity("gateway"));
        let directory = with(mutual);
        let mut watched = Watched::with_snapshot(&directory, "k/").await;
        write(&directory, [put("k/a", "1")]).await;
        watched.until_value("k/a", "1").await;

        denied(&with(trusting.clone()), "k/a").await;
        let stranger = trusting.identity(Authority::new().identity("gateway"));
        denied(&with(stranger), "k/a").await;
        let distrusting = ClientTlsConfig::new()
            .ca_certificate(Authority::new().certificate())
            .identity(authority.identity("gateway"));
        let failed = with(distrusting).grant(Duration::from_secs(5)).await;
        assert!(
            matches!(failed, Err(DirectoryError::Unavailable(_))),
            "{failed:?}"
        );
    })
    .await;
}
