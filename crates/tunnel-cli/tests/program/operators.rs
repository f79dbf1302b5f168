//! What operators see and do.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tunnel_process::{Process, Show, Signal};

use crate::calls::{Caller, server};
use crate::programs::{Gateway, TIMEOUT, run, terminate, tunnel};

/// Runs a command of operators; returns its output.
pub(crate) async fn operator(gateway: &Gateway, arguments: &[&str]) -> String {
    let admin = gateway.admin.to_string();
    let (code, output, errors) = run(&[arguments, &["--admin", &admin]].concat()).await;
    assert_eq!(code, 0, "{arguments:?}: {errors}");
    output
}

async fn page(address: SocketAddr, path: &str) -> String {
    let mut connection = TcpStream::connect(address).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n");
    connection
        .write_all(request.as_bytes())
        .await
        .expect("it is read");
    let mut page = String::new();
    connection
        .read_to_string(&mut page)
        .await
        .expect("it is sent");
    page
}

#[tokio::test]
async fn a_denied_device_is_refused_and_says_why_until_it_is_allowed() {
    let (server, _reporter) = server().await;
    let gateway = Gateway::start(&[]).await;
    let _agent = gateway.agent("device", &server.address().to_string()).await;
    let channel = gateway.channel();
    assert!(operator(&gateway, &["list"]).await.contains("device"));
    operator(&gateway, &["deny", "device", "--reason", "stolen"]).await;
    let status = Caller::of("device")
        .check(&channel)
        .await
        .expect_err("denied");
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(
        status.message().contains("\"device\" is denied: stolen"),
        "{status:?}"
    );
    gateway.wait_for("device", ServingStatus::NotServing).await;
    assert!(operator(&gateway, &["denied"]).await.contains("stolen"));
    operator(&gateway, &["allow", "device"]).await;
    // Denied agents come back slowly, so another one comes.
    let _agent = gateway.agent("device", &server.address().to_string()).await;
    Caller::of("device").check(&channel).await.expect("allowed");
    operator(&gateway, &["kick", "device"]).await;
    gateway.wait_for("device", ServingStatus::Serving).await;
    let stats = operator(&gateway, &["stats", "--json"]).await;
    let stats: serde_json::Value = serde_json::from_str(&stats).expect("JSON");
    assert_eq!(stats["devices_denied"], 0);
    assert_eq!(stats["ready"], true);
}

#[tokio::test]
async fn metrics_and_readiness_are_pages_and_a_stop_lets_calls_end() {
    let (server, reporter) = server().await;
    let mut gateway = Gateway::start(&[]).await;
    let _agent = gateway.agent("device", &server.address().to_string()).await;
    let channel = gateway.channel_of("device");
    Caller::default()
        .check(&channel)
        .await
        .expect("it is connected");
    let metrics = page(gateway.http, "/metrics").await;
    let open = "tunnel_open{tunnel_direction=\"reverse\",tunnel_role=\"server\"} 1";
    assert!(metrics.contains(open), "{metrics}");
    assert!(
        page(gateway.http, "/healthz")
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        page(gateway.http, "/readyz")
            .await
            .starts_with("HTTP/1.1 200")
    );

    let mut stream = Caller::default()
        .watch(&channel)
        .await
        .expect("it is connected");
    gateway.process.signal(Signal::Terminate).expect("it runs");
    let unready = async {
        while page(gateway.http, "/readyz")
            .await
            .starts_with("HTTP/1.1 200")
        {}
    };
    tokio::time::timeout(TIMEOUT, unready)
        .await
        .expect("it is unready");
    // The call in flight goes on.
    reporter
        .set_service_status("", tonic_health::ServingStatus::NotServing)
        .await;
    let next = tokio::time::timeout(TIMEOUT, stream.message())
        .await
        .expect("an event");
    let next = next.expect("the call goes on").expect("a response");
    assert_eq!(next.status(), ServingStatus::NotServing);
    drop((stream, channel));
    let status = gateway
        .process
        .wait(TIMEOUT)
        .expect("it runs")
        .expect("it ends");
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_drained_gateway_stops_without_notice() {
    let notice = Duration::from_secs(5);
    let seconds = notice.as_secs().to_string();
    let mut gateway = Gateway::start(&["--drain-notice", &seconds]).await;
    operator(&gateway, &["drain"]).await;
    let began = Instant::now();
    terminate(&mut gateway.process);
    assert!(began.elapsed() < notice, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_tap_shows_calls_and_their_bodies_only_when_asked() {
    let (server, _reporter) = server().await;
    let gateway = Gateway::start(&[]).await;
    let _agent = gateway.agent("device", &server.address().to_string()).await;
    let channel = gateway.channel();
    let admin = gateway.admin.to_string();
    for (flags, bodies) in [(&["--json"][..], false), (&["--json", "--bodies"], true)] {
        let arguments = [&["tap", "dev*", "--begin", "--admin", &admin], flags].concat();
        let mut tap = Process::start(&mut tunnel(&arguments), Show::Nothing).expect("it starts");
        // Calls until one is seen whole: the tap takes a moment to begin.
        let seen = async {
            let mut began = std::collections::BTreeSet::new();
            loop {
                Caller::of("nobody")
                    .check(&channel)
                    .await
                    .expect_err("not tapped");
                Caller::of("device")
                    .check(&channel)
                    .await
                    .expect("it is connected");
                let line = tokio::select! {
                    line = tap.next_stdout_line() => line.expect("an event"),
                    () = tokio::task::yield_now() => continue,
                };
                let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
                assert_eq!(event["key"], "device");
                assert_eq!(event["method"], "/grpc.health.v1.Health/Check");
                let call = event["call"].as_u64().expect("a number");
                match event["ended"].is_object() {
                    false => assert!(began.insert(call), "{call} began twice"),
                    true if began.contains(&call) => return event,
                    true => {}
                }
            }
        };
        let ended = tokio::time::timeout(TIMEOUT, seen)
            .await
            .expect("it is seen");
        assert_eq!(ended["ended"]["status"], "OK");
        assert_eq!(ended["ended"]["bytes_sent"], 7);
        // The head of five bytes and the two of the message, in base64.
        let shown = if bodies { "AAAAAAIIAQ==" } else { "" };
        assert_eq!(ended["ended"]["response"], shown);
    }
}

/// A server of webhooks that refuses the first request, and hands out the bodies of the others.
async fn hooks() -> (
    SocketAddr,
    tokio::sync::mpsc::UnboundedReceiver<(String, serde_json::Value)>,
) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("bound");
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let first = std::sync::atomic::AtomicBool::new(true);
    let first = std::sync::Arc::new(first);
    let take = move |headers: http::HeaderMap, body: String| {
        let (sender, first) = (sender.clone(), first.clone());
        async move {
            if first.swap(false, std::sync::atomic::Ordering::Relaxed) {
                return http::StatusCode::SERVICE_UNAVAILABLE;
            }
            let signature = headers
                .get("webhook-signature")
                .and_then(|value| value.to_str().ok());
            let signature = signature.unwrap_or_default().to_owned();
            let body = serde_json::from_str(&body).expect("JSON");
            // The test may have ended.
            let _ = sender.send((signature, body));
            http::StatusCode::NO_CONTENT
        }
    };
    let router = axum::Router::new().route("/hook", axum::routing::post(take));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, receiver)
}

#[tokio::test]
async fn a_webhook_is_told_in_order_who_comes_goes_and_is_denied() {
    let (address, mut events) = hooks().await;
    let directory = tempfile::tempdir().expect("a directory");
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "a secret").expect("it is written");
    let secret = secret.to_str().expect("text");
    let hook = format!("http://{address}/hook");
    let gateway = Gateway::start(&["--webhook", &hook, "--webhook-secret", secret]).await;
    let mut agent = gateway.agent("device", "127.0.0.1:1").await;
    terminate(&mut agent);
    gateway.wait_for("device", ServingStatus::NotServing).await;
    operator(&gateway, &["deny", "device", "--reason", "stolen"]).await;
    for kind in ["device.online", "device.offline", "device.denied"] {
        let event = tokio::time::timeout(TIMEOUT, events.recv())
            .await
            .expect("it is sent");
        let (signature, event) = event.expect("the server runs");
        assert!(signature.starts_with("v1,"), "{signature}");
        assert_eq!(event["type"], kind);
        assert_eq!(event["data"]["key"], "device");
    }
}
