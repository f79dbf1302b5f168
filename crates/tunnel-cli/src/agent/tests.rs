//! An agent, a gateway and a local server on loopback.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Code, Streaming};
use tonic_health::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_health::server::HealthReporter;
use tunnel_client::{LinkStatus, LinksHandle};
use tunnel_conformance::Authority;
use tunnel_server::{AffinityKey, KeyFrom, Opening, TunnelServiceHandler};

use super::*;
use crate::connect::{ConnectArgs, KeyChannel};

/// A server in a runtime of its own, so that its connections end with it. It ends when this is dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Running {
    /// Ends the server and its connections, and waits for that.
    pub(crate) async fn end(mut self) -> SocketAddr {
        if let Some(runtime) = self.runtime.take() {
            let ended = tokio::task::spawn_blocking(move || {
                runtime.shutdown_timeout(Duration::from_secs(10));
            });
            ended.await.expect("ended");
        }
        self.address
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(routes: Routes, address: SocketAddr) -> Running {
    serve_with(Server::builder(), routes, address).await
}

async fn serve_with(mut server: Server, routes: Routes, address: SocketAddr) -> Running {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let server = server.add_routes(routes);
    let listening = runtime.spawn(async move {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        address
    });
    Running {
        address: listening.await.expect("bound"),
        runtime: Some(runtime),
    }
}

fn any() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// A gateway that believes every key.
pub(crate) async fn gateway() -> Running {
    serve(gateway_routes(), any()).await
}

fn gateway_routes() -> Routes {
    let handler = TunnelServiceHandler::builder()
        .affinity_key(|opening: &Opening| opening.metadata_str("tunnel-key").map(AffinityKey::from))
        .build();
    let proxy = handler.proxy(KeyFrom::metadata("tunnel-key"));
    let routes = axum::Router::new().fallback_service(proxy);
    Routes::from(routes).add_service(handler.service())
}

/// A local server with health and reflection.
pub(crate) async fn local(address: SocketAddr) -> (Running, HealthReporter) {
    let (reporter, health) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    let v1 = reflection.build_v1().expect("legal");
    let gzip = CompressionEncoding::Gzip;
    let health = health.accept_compressed(gzip).send_compressed(gzip);
    let routes = Routes::new(health).add_service(v1);
    (serve(routes, address).await, reporter)
}

pub(crate) fn local_anywhere() -> impl Future<Output = (Running, HealthReporter)> {
    local(any())
}

/// An agent that is connected.
pub(crate) async fn agent(gateway: SocketAddr, to: Vec<String>) -> (LinksHandle, JoinHandle<()>) {
    let settings = Settings {
        gateway: vec![gateway.to_string()],
        key: Some("seven".to_owned()),
        to,
        ..Settings::default()
    };
    let server = server(&settings.complete(None).expect("legal")).expect("legal");
    let handle = server.handle();
    let running = tokio::spawn(async move {
        server.run().await;
    });
    handle.connected().await.expect("it connects");
    (handle, running)
}

pub(crate) fn through(gateway: SocketAddr) -> KeyChannel {
    let connect = ConnectArgs {
        gateway: gateway.to_string(),
        credentials: Credentials::default(),
    };
    connect.lazy_key_channel("seven").expect("legal")
}

async fn check(channel: KeyChannel) -> Result<i32, Status> {
    let request = HealthCheckRequest::default();
    let response = HealthClient::new(channel).check(request).await?;
    Ok(response.into_inner().status)
}

async fn next(responses: &mut Streaming<HealthCheckResponse>) -> i32 {
    let response = responses.message().await.expect("it goes on");
    response.expect("it goes on").status
}

#[tokio::test]
async fn calls_of_all_kinds_reach_the_local_server() {
    let gateway = gateway().await;
    let (local, reporter) = local_anywhere().await;
    let _agent = agent(gateway.address, vec![local.address.to_string()]).await;
    let channel = through(gateway.address);
    assert_eq!(check(channel.clone()).await.expect("served"), 1);

    let mut client = HealthClient::new(channel);
    let request = HealthCheckRequest::default();
    let mut watching = client.watch(request).await.expect("served").into_inner();
    assert_eq!(next(&mut watching).await, 1);
    reporter
        .set_service_status("", ServingStatus::NotServing)
        .await;
    assert_eq!(next(&mut watching).await, 2);

    // A status of the server itself, with its own message.
    let request = HealthCheckRequest {
        service: "nothing".to_owned(),
    };
    let status = client.check(request).await.expect_err("unknown");
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.message(), "service not registered");
}

#[tokio::test]
async fn while_the_local_server_is_away_calls_fail_and_the_tunnel_stays() {
    let gateway = gateway().await;
    let (local_server, _) = local_anywhere().await;
    let to = local_server.address.to_string();
    let (handle, _running) = agent(gateway.address, vec![to.clone()]).await;
    let channel = through(gateway.address);
    let mut client = HealthClient::new(channel.clone());
    let watching = client.watch(HealthCheckRequest::default()).await;
    let mut watching = watching.expect("served").into_inner();
    assert_eq!(next(&mut watching).await, 1);
    let address = local_server.end().await;

    let status = watching.message().await.expect_err("it broke");
    assert_eq!(status.code(), Code::Unavailable);
    let wanted = format!("the agent has lost the server at {to}: ");
    assert!(status.message().starts_with(&wanted), "{status}");

    // The first call may find the connection as it breaks.
    let _ = check(channel.clone()).await;
    let status = check(channel.clone()).await.expect_err("nobody serves");
    assert_eq!(status.code(), Code::Unavailable);
    let wanted = format!("the agent cannot reach the server at {to}: connection refused");
    assert_eq!(status.message(), wanted);

    let (_local, _) = local(address).await;
    check(channel).await.expect("served again");
    assert_eq!(handle.links()[0].attempts(), 1);
}

#[tokio::test]
async fn compressed_messages_pass_untouched() {
    let gateway = gateway().await;
    let (local, _) = local_anywhere().await;
    let _agent = agent(gateway.address, vec![local.address.to_string()]).await;
    let gzip = CompressionEncoding::Gzip;
    let client = HealthClient::new(through(gateway.address));
    let mut client = client.send_compressed(gzip).accept_compressed(gzip);
    let response = client.check(HealthCheckRequest::default()).await;
    let response = response.expect("served");
    assert_eq!(
        response.metadata().get("grpc-encoding").expect("set"),
        "gzip"
    );
    assert_eq!(response.into_inner().status, 1);
}

#[tokio::test]
async fn a_call_goes_to_the_server_of_its_service() {
    let gateway = gateway().await;
    let (local, _) = local_anywhere().await;
    let to = vec![format!("grpc.health={}", local.address)];
    let _agent = agent(gateway.address, to).await;
    let channel = through(gateway.address);
    check(channel.clone()).await.expect("served");
    let mut other = tonic::client::Grpc::new(channel);
    other.ready().await.expect("always");
    let path = http::uri::PathAndQuery::from_static("/other.Service/Method");
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let result = other.unary(tonic::Request::new(()), path, codec).await;
    let status = result.expect_err("nobody serves it");
    assert_eq!(status.code(), Code::Unimplemented);
    let message = "the agent exposes no server for /other.Service/Method";
    assert_eq!(status.message(), message);
}

#[tokio::test]
async fn an_agent_comes_back_after_its_gateway() {
    let first = gateway().await;
    let (local, _) = local_anywhere().await;
    let (handle, _running) = agent(first.address, vec![local.address.to_string()]).await;
    let mut links = handle.watch();
    let address = first.end().await;
    let lost = links.wait_for(|links| !links[0].is_connected());
    lost.await.expect("it runs");

    let status = check(through(address)).await.expect_err("no gateway");
    assert_eq!(status.code(), Code::Unavailable);
    let wanted = format!("this command cannot reach the gateway at {address}: connection refused");
    assert_eq!(status.message(), wanted);

    let second = serve(gateway_routes(), address).await;
    handle.connected().await.expect("it runs");
    check(through(second.address)).await.expect("served");
}

#[cfg(unix)]
#[tokio::test]
async fn a_local_server_may_listen_at_a_unix_socket() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("server.sock");
    let listener = tokio::net::UnixListener::bind(&socket).expect("bound");
    let (_, health) = tonic_health::server::health_reporter();
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
    tokio::spawn(
        Server::builder()
            .add_service(health)
            .serve_with_incoming(incoming),
    );
    let gateway = gateway().await;
    let _agent = agent(gateway.address, vec![format!("unix:{}", socket.display())]).await;
    check(through(gateway.address)).await.expect("served");
}

#[tokio::test]
async fn a_token_is_read_anew_for_each_attempt() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let credentials = Credentials {
        token_file: Some(file.path().to_owned()),
        ..Credentials::default()
    };
    for wanted in ["one", "two"] {
        std::fs::write(file.path(), format!("{wanted}\n")).expect("written");
        let metadata = token(&credentials).expect("legal");
        let token = metadata.get("authorization").expect("a token");
        assert_eq!(*token, format!("Bearer {wanted}"));
    }
    drop(file);
    let status = token(&credentials).expect_err("no file");
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn certificates_are_read_anew_for_each_connection() {
    let (ours, other) = (Authority::new(), Authority::new());
    let (cert, key) = ours.issue("gateway.example");
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(cert, key))
        .client_ca_root(ours.certificate());
    let secure = Server::builder().tls_config(tls).expect("legal");
    let gateway = serve_with(secure, gateway_routes(), any()).await;

    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str| directory.path().join(name);
    let write = |authority: &Authority| {
        let (cert, key) = authority.issue("seven");
        std::fs::write(file("ca"), authority.pem()).expect("written");
        std::fs::write(file("cert"), cert).expect("written");
        std::fs::write(file("key"), key).expect("written");
    };
    write(&other);
    let settings = Settings {
        gateway: vec![gateway.address.to_string()],
        key: Some("seven".to_owned()),
        to: vec!["127.0.0.1:1".to_owned()],
        ca: Some(file("ca")),
        cert: Some(file("cert")),
        cert_key: Some(file("key")),
        server_name: Some("gateway.example".to_owned()),
        ..Settings::default()
    };
    let server = server(&settings.complete(None).expect("legal")).expect("legal");
    let handle = server.handle();
    let mut links = handle.watch();
    tokio::spawn(server.run());
    let failed = |links: &Vec<LinkStatus>| {
        let mut reasons = links.iter().filter_map(LinkStatus::last_down_reason);
        reasons.next().is_some()
    };
    links.wait_for(failed).await.expect("it runs");

    write(&ours);
    handle.connected().await.expect("it runs");
}

#[tokio::test]
async fn a_deadline_that_a_silent_server_misses_is_exceeded() {
    // It listens and does not speak.
    let silent = TcpListener::bind(any()).await.expect("bound");
    let address = silent.local_addr().expect("bound").to_string();
    let target = target::Target::new(&target::Address::Plain(address), None).expect("legal");
    let mut request = tonic::Request::new(HealthCheckRequest::default());
    request.set_timeout(Duration::from_millis(50));
    let result = HealthClient::new(target).check(request).await;
    let status = result.expect_err("it is silent");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}
