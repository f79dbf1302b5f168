//! Gateways of a fleet, as processes: what operators of one see and do at the others.

use std::path::Path;
use std::time::{Duration, Instant};

use tonic_health::pb::health_check_response::ServingStatus;

use tunnel_process::{Process, Show, Signal};

use crate::calls::{Caller, server};
use crate::fleets::Etcd;
use crate::operators::operator;
use crate::programs::{Gateway, TIMEOUT, run, tunnel};

/// Runs a command until its output has something.
async fn until(gateway: &Gateway, arguments: &[&str], wanted: &str) -> String {
    let began = Instant::now();
    loop {
        let output = operator(gateway, arguments).await;
        if output.contains(wanted) {
            return output;
        }
        assert!(began.elapsed() < TIMEOUT, "no {wanted:?}: {output}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Starts a command that goes on.
fn follow(gateway: &Gateway, command: &str) -> Process {
    let admin = gateway.admin.to_string();
    let mut command = tunnel(&[command, "--admin", &admin]);
    Process::start(&mut command, Show::Nothing).expect("it starts")
}

/// The next line of a command that has something.
async fn line(process: &mut Process, wanted: &str) -> String {
    let line = async {
        loop {
            let line = process.next_stdout_line().await.expect("it goes on");
            if line.contains(wanted) {
                return line;
            }
        }
    };
    let line = tokio::time::timeout(TIMEOUT, line).await;
    line.unwrap_or_else(|_| panic!("no {wanted:?}"))
}

#[tokio::test]
async fn a_watch_and_a_tap_follow_gateways_that_come_freeze_and_return() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let (server, _reporter) = server().await;
    let a = etcd.gateway("edge-a").await;
    let (mut watch, mut tap) = (follow(&a, "watch"), follow(&a, "tap"));
    line(&mut watch, "synced").await;
    let b = etcd.gateway("edge-b").await;
    line(&mut watch, "up").await;
    line(&mut tap, "edge-b is up").await;
    let _agent = b.agent("device", &server.address().to_string()).await;
    line(&mut watch, "device@edge-b").await;
    Caller::of("device")
        .check(&b.channel())
        .await
        .expect("it is connected");
    let call = line(&mut tap, "/grpc.health.v1.Health/Check").await;
    assert!(call.ends_with(" at edge-b"), "{call}");

    b.process.signal(Signal::Stop).expect("it runs");
    let down = line(&mut watch, "down").await;
    assert!(down.contains("@edge-b  it does not answer"), "{down}");
    line(&mut tap, "edge-b is down").await;
    b.process.signal(Signal::Continue).expect("it runs");
    line(&mut watch, "up").await;
    line(&mut watch, "device@edge-b").await;
    line(&mut tap, "edge-b is up").await;
}

#[tokio::test]
async fn operators_of_one_gateway_see_and_kick_the_devices_of_another() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let (server, _reporter) = server().await;
    let (a, mut b) = (etcd.gateway("edge-a").await, etcd.gateway("edge-b").await);
    let _agent = b.agent("device", &server.address().to_string()).await;
    let list = until(&a, &["list"], "edge-b").await;
    assert!(
        list.lines()
            .next()
            .is_some_and(|header| header.contains("GATEWAY")),
        "{list}"
    );
    let device = operator(&a, &["list", "--json"]).await;
    let device: serde_json::Value = serde_json::from_str(&device).expect("one device");
    assert_eq!(device["tunnels"][0]["gateway"], "edge-b");
    let top = operator(&a, &["top", "--count", "1"]).await;
    assert!(top.contains("GATEWAY") && top.contains("edge-b"), "{top}");
    let stats = operator(&a, &["stats"]).await;
    assert_eq!(
        stats
            .lines()
            .filter(|line| line.starts_with("edge-"))
            .count(),
        2,
        "{stats}"
    );

    let kicked = operator(&a, &["kick", "device", "--reason", "by hand"]).await;
    assert_eq!(kicked, "\"device\": 1 tunnel is ended\n");
    let logged = async {
        while let Some(line) = b.process.next_line_async().await {
            if line.text.contains("by hand") {
                return line.text.clone();
            }
        }
        panic!("the gateway has ended");
    };
    let logged = tokio::time::timeout(TIMEOUT, logged)
        .await
        .expect("it is logged");
    assert!(logged.contains("127.0.0.1 (through edge-a)"), "{logged}");

    // A gateway that is frozen is named, and holds nobody up.
    b.process.signal(Signal::Stop).expect("it runs");
    let began = Instant::now();
    let list = operator(&a, &["list"]).await;
    assert!(list.contains("not reached: edge-b"), "{list}");
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    b.process.signal(Signal::Continue).expect("it runs");
    until(&a, &["list"], "edge-b\u{20}").await;
}

/// Makes a CA for gateways, and the settings of a gateway with a certificate of it.
async fn hop_settings(directory: &Path) -> Vec<String> {
    let dir = directory.to_str().expect("UTF-8");
    for arguments in [&["init"][..], &["gateway", "127.0.0.1"]] {
        let (code, _, errors) = run(&[&["certs", "--dir", dir], arguments].concat()).await;
        assert_eq!(code, 0, "{errors}");
    }
    let settings = [
        ("--hop-cert", "gateway-127.0.0.1.pem"),
        ("--hop-key", "gateway-127.0.0.1-key.pem"),
        ("--hop-ca", "ca.pem"),
    ];
    let settings = settings.into_iter();
    settings
        .flat_map(|(flag, file)| [flag.to_owned(), format!("{dir}/{file}")])
        .collect()
}

#[tokio::test]
async fn gateways_with_certificates_reach_each_other_and_a_stranger_reaches_nobody() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let (ours, theirs) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let (ours, theirs) = (
        hop_settings(ours.path()).await,
        hop_settings(theirs.path()).await,
    );
    let ours: Vec<&str> = ours.iter().map(String::as_str).collect();
    let theirs: Vec<&str> = theirs.iter().map(String::as_str).collect();
    let (server, _reporter) = server().await;
    let a = etcd.gateway_with("edge-a", &ours).await;
    let b = etcd.gateway_with("edge-b", &ours).await;
    let _agent = b.agent("device", &server.address().to_string()).await;
    a.wait_for("device", ServingStatus::Serving).await;
    let caller = Caller::of("device");
    caller.check(&a.channel()).await.expect("by a hop");

    // It knows of the others from etcd, but has a certificate of another CA.
    let stranger = etcd.gateway_with("edge-c", &theirs).await;
    until(&stranger, &["list"], "not reached: edge-a").await;
    let refused = caller.check(&stranger.channel()).await;
    let refused = refused.expect_err("no hop");
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
}
