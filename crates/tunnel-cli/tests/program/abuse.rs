//! Clients and connections that mean no good.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::transport::Server;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tunnel_conformance::TcpServer;

use crate::calls::{Caller, server};
use crate::programs::{Gateway, TIMEOUT, plaintext, run, tunnel, wait_for};

/// How long a call may take beside the abuse.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn uploads_that_a_device_does_not_read_stop_no_other_device() {
    // Answers nothing, and reads nothing.
    let routes = axum::Router::new().fallback(|request: axum::extract::Request| async move {
        let _unread = request;
        std::future::pending::<()>().await;
    });
    let deaf = TcpServer::start(Server::builder(), routes.into()).await;
    let (good, _reporter) = server().await;
    let gateway = Gateway::start(&[]).await;
    let _deaf = gateway.agent("deaf", &deaf.address().to_string()).await;
    let _good = gateway.agent("good", &good.address().to_string()).await;
    let channel = plaintext(gateway.clients)
        .connect()
        .await
        .expect("it listens");
    let mut uploads = JoinSet::new();
    for _ in 0..900 {
        let channel = channel.clone();
        uploads.spawn(async move {
            let large = HealthCheckRequest {
                service: "x".repeat(256 << 10),
            };
            let mut request = tonic::Request::new(tokio_stream::iter([large.clone(), large]));
            let key = "deaf".parse().expect("legal");
            request.metadata_mut().insert("tunnel-key", key);
            let mut grpc = tonic::client::Grpc::new(channel);
            grpc.ready().await.expect("connected");
            let codec =
                tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckRequest>::default();
            let path = http::uri::PathAndQuery::from_static("/a.B/C");
            grpc.streaming(request, path, codec).await.map(|_| ())
        });
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let others = [gateway.channel(), channel];
    for channel in &others {
        for _ in 0..10 {
            let called = tokio::time::timeout(SOON, Caller::of("good").check(channel)).await;
            called.expect("in time").expect("the device is good");
        }
    }
}

/// Whether the gateway ends a connection that sends this and then nothing.
async fn is_ended(gateway: &Gateway, sends: &[u8]) -> bool {
    let mut connection = TcpStream::connect(gateway.clients)
        .await
        .expect("it listens");
    connection.write_all(sends).await.expect("sent");
    let ended = async {
        let mut received = [0; 1024];
        while matches!(connection.read(&mut received).await, Ok(1..)) {}
    };
    tokio::time::timeout(TIMEOUT, ended).await.is_ok()
}

#[tokio::test]
async fn connections_that_never_make_a_request_are_ended() {
    let gateway = Gateway::start(&[]).await;
    let (silent, half) = tokio::join!(
        is_ended(&gateway, b""),
        is_ended(&gateway, b"PRI * HTTP/2.0\r\n"),
    );
    assert!(silent && half, "{silent} {half}");
}

/// A program that is killed at the end.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program whose output and errors nobody reads, after some lines.
fn start_unread(arguments: &[&str], lines: usize) -> (Killed, Vec<String>) {
    let mut command = tunnel(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut program = command.spawn().expect("it starts");
    let output = BufReader::new(program.stdout.take().expect("a pipe"));
    let lines = output.lines().take(lines);
    let lines = lines.map(|line| line.expect("text")).collect();
    drop(program.stderr.take());
    (Killed(program), lines)
}

#[tokio::test]
async fn programs_go_on_when_nobody_reads_what_they_say() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| {
        directory
            .path()
            .join(name)
            .to_str()
            .expect("text")
            .to_owned()
    };
    let (tokens, token) = (path("tokens"), path("token"));
    let (_, secret, _) = run(&["token", "new", "device", "--file", &tokens]).await;
    std::fs::write(&token, secret).expect("written");
    let any = "127.0.0.1:0";
    let arguments = [
        "gateway",
        "--agents-listen",
        any,
        "--clients-listen",
        any,
        "--admin-listen",
        any,
        "--http-listen",
        any,
        "--agents-tokens",
        &tokens,
    ];
    let (_gateway, lines) = start_unread(&arguments, 4);
    let address = |line: &str| line.rsplit_once(' ').expect("an address").1.to_owned();
    let (agents, clients) = (address(&lines[0]), address(&lines[1]));
    let (server, _reporter) = server().await;
    let to = server.address().to_string();
    let arguments = [
        "agent",
        "--gateway",
        &agents,
        "--token-file",
        &token,
        "--key",
        "device",
        "--to",
        &to,
    ];
    let (_agent, _) = start_unread(&arguments, 0);
    let channel = plaintext(clients.parse().expect("an address")).connect_lazy();
    wait_for(channel.clone(), "device", ServingStatus::Serving).await;
    std::fs::write(&tokens, "# nobody\n").expect("written");
    wait_for(channel, "device", ServingStatus::NotServing).await;
}
