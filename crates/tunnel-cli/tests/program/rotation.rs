//! The certificate of a gateway is replaced, by one of another CA, under calls.

use std::fs;
use std::path::Path;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic_health::pb::health_check_response::ServingStatus;
use tunnel_process::{Process, Show};

use crate::calls::{Caller, server};
use crate::programs::{Gateway, TIMEOUT, run, tunnel, wait_for};

/// Makes a CA and a certificate for localhost; returns the certificate of the CA.
async fn authority(directory: &Path) -> Vec<u8> {
    let path = directory.to_str().expect("text");
    for arguments in [&["init"][..], &["server", "localhost"]] {
        let (code, _, errors) = run(&[&["certs", "--dir", path], arguments].concat()).await;
        assert_eq!(code, 0, "{errors}");
    }
    fs::read(directory.join("ca.pem")).expect("it is there")
}

fn install(from: &Path, to: &Path) {
    for name in ["server-localhost.pem", "server-localhost-key.pem"] {
        let new = to.join("new");
        fs::copy(from.join(name), &new).expect("it is copied");
        fs::rename(new, to.join(name)).expect("it is renamed");
    }
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections_and_ends_no_call() {
    let directory = tempfile::tempdir().expect("a directory");
    let [one, two, used] = ["one", "two", "used"].map(|name| directory.path().join(name));
    let (old_ca, new_ca) = (authority(&one).await, authority(&two).await);
    fs::create_dir(&used).expect("a directory");
    install(&one, &used);
    let path = |name: &str| used.join(name).to_str().expect("text").to_owned();
    fs::write(path("both.pem"), [&old_ca[..], &new_ca].concat()).expect("it is written");
    let (server, reporter) = server().await;
    let gateway = Gateway::start(&[
        "--tls-cert",
        &path("server-localhost.pem"),
        "--tls-key",
        &path("server-localhost-key.pem"),
    ])
    .await;
    let mut agent = tunnel(&[
        "agent",
        "--gateway",
        &gateway.agents.to_string(),
        "--key",
        "device",
        "--to",
        &server.address().to_string(),
        "--ca",
        &path("both.pem"),
        "--server-name",
        "localhost",
    ]);
    let _agent = Process::start(&mut agent, Show::Nothing).expect("it starts");
    let channel = |ca: &[u8]| -> Channel {
        let tls = ClientTlsConfig::new().domain_name("localhost");
        let address = format!("https://{}", gateway.clients);
        let endpoint = Endpoint::from_shared(address).expect("an address");
        let endpoint = endpoint.tls_config(tls.ca_certificate(Certificate::from_pem(ca)));
        endpoint.expect("legal").connect_lazy()
    };
    let old = channel(&old_ca);
    wait_for(old.clone(), "device", ServingStatus::Serving).await;
    let mut stream = Caller::of("device")
        .watch(&old)
        .await
        .expect("it is connected");
    Caller::of("device")
        .check(&channel(&new_ca))
        .await
        .expect_err("another CA");

    install(&two, &used);
    let taken = async { while Caller::of("device").check(&channel(&new_ca)).await.is_err() {} };
    tokio::time::timeout(TIMEOUT, taken)
        .await
        .expect("the new certificate is used");
    Caller::of("device")
        .check(&channel(&old_ca))
        .await
        .expect_err("the old one is not");
    // What was open goes on: the tunnel, the connection of the client, its call.
    reporter
        .set_service_status("", tonic_health::ServingStatus::NotServing)
        .await;
    let next = tokio::time::timeout(TIMEOUT, stream.message())
        .await
        .expect("an event");
    let next = next.expect("the call goes on").expect("a response");
    assert_eq!(next.status(), ServingStatus::NotServing);
}
