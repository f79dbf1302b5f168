//! Connections through the HTTP CONNECT proxy from the environment, made in a separate process.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tonic::service::Routes;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};
use tunnel_client::Gateway;
use tunnel_conformance::service::scripted;
use tunnel_conformance::{Probe, TcpServer};
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

use crate::support::{assert_usable, channel, client, guarded};

/// Environment variables of the client process: its target and its trusted certificate.
const ADDRESS: &str = "TUNNEL_TEST_ADDRESS";
const TRUST: &str = "TUNNEL_TEST_TRUST";

/// A CONNECT proxy, and the number of connections it has carried.
async fn proxy() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let carried = Arc::new(AtomicUsize::new(0));
    let count = carried.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(carry(client, count.clone()));
        }
    });
    (format!("http://{address}"), carried)
}

async fn carry(client: TcpStream, carried: Arc<AtomicUsize>) {
    let mut client = BufReader::new(client);
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line: &String| line != "\r\n") {
        let mut line = String::new();
        client.read_line(&mut line).await.expect("a request");
        lines.push(line);
    }
    let target = lines[0].strip_prefix("CONNECT ").expect("a CONNECT");
    let target = target.split(' ').next().expect("a target");
    let mut target = TcpStream::connect(target).await.expect("it is there");
    let answer = b"HTTP/1.1 200 Connection established\r\n\r\n";
    client.write_all(answer).await.expect("the client is there");
    carried.fetch_add(1, Ordering::SeqCst);
    let _ = copy_bidirectional(&mut client, &mut target).await;
}

/// The client process: one call.
async fn dial(address: &str) {
    let mut endpoint = Endpoint::from_shared(address.to_owned()).expect("valid");
    if let Ok(trust) = std::env::var(TRUST) {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(trust));
        endpoint = endpoint.tls_config(tls).expect("valid");
    }
    let kept = channel(Gateway::from(endpoint).proxy_from_env())
        .connect()
        .await;
    assert_usable(&client(&kept.expect("it opens"))).await;
}

/// Runs this test in another process, as the client.
async fn in_a_process_of_its_own(test: &str, variables: &[(&str, &str)]) {
    let program = std::env::current_exe().expect("a path");
    let output = Command::new(program)
        .args(["--exact", test, "--nocapture"])
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

fn handler(probe: &Probe) -> Routes {
    let handler = TunnelServiceHandler::builder().add_service(scripted(probe));
    Routes::new(handler.build().service())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_goes_through_the_proxy_that_the_environment_names() {
    if let Ok(address) = std::env::var(ADDRESS) {
        return dial(&address).await;
    }
    guarded(async {
        let routes = handler(&Probe::default());
        let server = TcpServer::start(server_for_tunnels(Server::builder()), routes).await;
        let address = format!("http://{}", server.address());
        let (proxy, carried) = proxy().await;
        let test = "proxies::a_tunnel_goes_through_the_proxy_that_the_environment_names";
        for (no_proxy, expected) in [("", 1), ("127.0.0.0/8", 1)] {
            let proxies = [("HTTP_PROXY", &*proxy), ("NO_PROXY", no_proxy)];
            let variables = [&[(ADDRESS, &*address)], &proxies[..]].concat();
            in_a_process_of_its_own(test, &variables).await;
            assert_eq!(carried.load(Ordering::SeqCst), expected);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_over_tls_goes_through_the_proxy_too() {
    if let Ok(address) = std::env::var(ADDRESS) {
        return dial(&address).await;
    }
    guarded(async {
        let own: CertifiedKey<_> =
            generate_simple_self_signed([String::from("localhost")]).expect("a certificate");
        let identity = Identity::from_pem(own.cert.pem(), own.signing_key.serialize_pem());
        let server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity));
        let server = server_for_tunnels(server.expect("valid"));
        let server = TcpServer::start(server, handler(&Probe::default())).await;
        let address = format!("https://localhost:{}", server.address().port());
        let (proxy, carried) = proxy().await;
        let trust = own.cert.pem();
        let variables = [
            (ADDRESS, &*address),
            (TRUST, &*trust),
            ("https_proxy", &*proxy),
        ];
        let test = "proxies::a_tunnel_over_tls_goes_through_the_proxy_too";
        in_a_process_of_its_own(test, &variables).await;
        assert_eq!(carried.load(Ordering::SeqCst), 1);
    })
    .await;
}
