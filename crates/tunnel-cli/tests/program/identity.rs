//! Who gets in, and who is put out.

use std::fs;
use std::path::PathBuf;

use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tunnel_conformance::TcpServer;
use tunnel_process::{Process, Show};

use crate::calls::{Caller, server};
use crate::programs::{Gateway, TIMEOUT, run, terminate, tunnel, wait_for};

/// A directory with files, whose paths are text.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        path.to_str().expect("text").to_owned()
    }

    fn write(&self, name: &str, text: &str) -> String {
        // As an operator's tools do: the new file replaces the old one at once.
        let new = self.path("new");
        fs::write(&new, text).expect("it is written");
        fs::rename(new, self.path(name)).expect("it is renamed");
        self.path(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect("it is there")
    }

    /// A new token of somebody.
    async fn token(&self, file: &str, name: &str) -> String {
        let (code, token, errors) = run(&["token", "new", name, "--file", &self.path(file)]).await;
        assert_eq!(code, 0, "{errors}");
        token.trim().to_owned()
    }

    async fn certs(&self, arguments: &[&str]) {
        let directory = self.path("");
        let arguments = [
            &["certs", arguments[0], "--dir", &directory],
            &arguments[1..],
        ]
        .concat();
        let (code, output, errors) = run(&arguments).await;
        assert_eq!(code, 0, "{output}{errors}");
    }
}

fn start(arguments: &[&str]) -> Process {
    Process::start(&mut tunnel(arguments), Show::Nothing).expect("it starts")
}

async fn says(process: &mut Process, part: &str) {
    let said = async {
        while let Some(line) = process.next_line_async().await {
            if line.text.contains(part) {
                return;
            }
        }
        panic!("it has ended without {part:?}");
    };
    let waited = tokio::time::timeout(TIMEOUT, said).await;
    waited.unwrap_or_else(|_| panic!("no {part:?}: {}", process.last_words()));
}

#[tokio::test]
async fn a_token_gives_its_key_and_no_other_until_it_is_revoked() {
    let files = Files::new();
    let token = files.token("tokens", "device").await;
    let token_file = files.write("token", &token);
    let (server, _reporter) = server().await;
    let gateway = Gateway::start(&["--agents-tokens", &files.path("tokens")]).await;
    let (agents, to) = (gateway.agents.to_string(), server.address().to_string());
    let agent = |key, token: &[&str]| {
        let arguments = ["agent", "--gateway", &agents, "--to", &to, "--key", key];
        start(&[&arguments[..], token].concat())
    };
    let mut thief = agent("another", &["--token-file", &token_file]);
    says(&mut thief, "not of \"another\"").await;
    let mut stranger = agent("device", &[]);
    says(&mut stranger, "present a certificate or a bearer token").await;
    let mut device = agent("device", &["--token-file", &token_file]);
    gateway.wait_for("device", ServingStatus::Serving).await;
    let stream = Caller::of("device").watch(&gateway.channel()).await;
    let mut stream = stream.expect("it is connected");
    files.write("tokens", "# nobody\n");
    gateway.wait_for("device", ServingStatus::NotServing).await;
    stream.message().await.expect_err("the tunnel has ended");
    says(&mut device, "Unauthenticated").await;
}

#[tokio::test]
async fn mutual_tls_proves_agents_and_clients_and_a_crl_puts_them_out() {
    let files = Files::new();
    files.certs(&["init"]).await;
    files.certs(&["server", "localhost"]).await;
    files.certs(&["agent", "device"]).await;
    files.certs(&["client", "alice"]).await;
    let crl = files.path("crl.pem");
    let (server, _reporter) = server().await;
    let gateway = Gateway::start(&[
        "--tls-cert",
        &files.path("server-localhost.pem"),
        "--tls-key",
        &files.path("server-localhost-key.pem"),
        "--agents-ca",
        &files.path("ca.pem"),
        "--clients-ca",
        &files.path("ca.pem"),
        "--crl",
        &crl,
    ])
    .await;
    let to = server.address().to_string();
    let _agent = start(&[
        "agent",
        "--gateway",
        &gateway.agents.to_string(),
        "--key",
        "device",
        "--to",
        &to,
        "--ca",
        &files.path("ca.pem"),
        "--cert",
        &files.path("agent-device.pem"),
        "--cert-key",
        &files.path("agent-device-key.pem"),
        "--server-name",
        "localhost",
    ]);
    let tls = ClientTlsConfig::new()
        .domain_name("localhost")
        .ca_certificate(Certificate::from_pem(files.read("ca.pem")));
    let alice = Identity::from_pem(
        files.read("client-alice.pem"),
        files.read("client-alice-key.pem"),
    );
    let channel = |tls: ClientTlsConfig| -> Channel {
        let endpoint =
            Endpoint::from_shared(format!("https://{}", gateway.clients)).expect("an address");
        endpoint.tls_config(tls).expect("legal").connect_lazy()
    };
    let stranger = channel(tls.clone());
    Caller::of("device")
        .check(&stranger)
        .await
        .expect_err("no certificate");
    let channel = channel(tls.identity(alice));
    wait_for(channel.clone(), "device", ServingStatus::Serving).await;
    Caller::of("device")
        .check(&channel)
        .await
        .expect("alice may call");
    files.certs(&["revoke", "device"]).await;
    wait_for(channel, "device", ServingStatus::NotServing).await;
}

#[tokio::test]
async fn the_access_file_says_who_may_call_what_and_is_read_again() {
    let files = Files::new();
    let (alice, bob) = (
        files.token("clients", "alice").await,
        files.token("clients", "bob").await,
    );
    let allow = |methods: &str| {
        format!("[[allow]]\nwho = [\"alice\"]\nkeys = [\"dev*\"]\nmethods = [\"{methods}\"]\n")
    };
    let access = files.write("access.toml", &allow("/grpc.health.v1.Health/*"));
    let (server, _reporter) = server().await;
    let tokens = files.path("clients");
    let mut gateway = Gateway::start(&["--clients-tokens", &tokens, "--access", &access]).await;
    let to = server.address().to_string();
    let mut agent = start(&[
        "agent",
        "--gateway",
        &gateway.agents.to_string(),
        "--key",
        "device",
        "--to",
        &to,
    ]);
    says(&mut agent, "connected").await;
    let channel = gateway.channel();
    let (alice, bob) = (
        Caller::of("device").with_token(&alice),
        Caller::of("device").with_token(&bob),
    );
    alice.check(&channel).await.expect("alice may");
    let status = bob.check(&channel).await.expect_err("bob may not");
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(
        status.message().contains("\"bob\" may not call"),
        "{status:?}"
    );
    let status = Caller::of("device")
        .check(&channel)
        .await
        .expect_err("who is that?");
    assert_eq!(status.code(), Code::Unauthenticated);
    let status = Caller::of("device")
        .with_token("guess")
        .check(&channel)
        .await
        .expect_err("not a token");
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(!status.message().contains("guess"), "{status:?}");

    // A mistake changes nothing and is told.
    let mut stream = alice.watch(&channel).await.expect("alice may");
    files.write("access.toml", "[[alow]]\n");
    says(&mut gateway.process, "access.toml").await;
    alice.check(&channel).await.expect("the old file counts");

    // What is not allowed any more ends.
    files.write("access.toml", &allow("/other.Service/*"));
    let status = stream.message().await.expect_err("alice may not any more");
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(
        alice.check(&channel).await.expect_err("nor again").code(),
        Code::PermissionDenied
    );
}

#[tokio::test]
async fn a_jwt_identifies_a_client_until_it_expires() {
    let files = Files::new();
    let key = rcgen::KeyPair::generate().expect("a key");
    let keys = files.write("issuer.pem", &key.public_key_pem());
    let (server, _reporter) = server().await;
    let gateway = Gateway::start(&["--clients-jwt-keys", &keys, "--jwt-issuer", "test"]).await;
    let to = server.address().to_string();
    let mut agent = start(&[
        "agent",
        "--gateway",
        &gateway.agents.to_string(),
        "--key",
        "device",
        "--to",
        &to,
    ]);
    says(&mut agent, "connected").await;
    let jwt = |issuer: &str, seconds: i64| {
        let claims = serde_json::json!({
            "sub": "alice", "iss": issuer, "exp": chrono::Utc::now().timestamp() + seconds,
        });
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
        let key = jsonwebtoken::EncodingKey::from_ec_pem(key.serialize_pem().as_bytes());
        jsonwebtoken::encode(&header, &claims, &key.expect("a key")).expect("a token")
    };
    let channel = gateway.channel();
    let caller = |jwt: &str| Caller::of("device").with_token(jwt);
    for wrong in [jwt("another", 60), jwt("test", -3600)] {
        let status = caller(&wrong).check(&channel).await.expect_err("not good");
        assert_eq!(status.code(), Code::Unauthenticated);
    }
    let mut stream = caller(&jwt("test", 2))
        .watch(&channel)
        .await
        .expect("it is good for two seconds");
    let status = stream.message().await.expect_err("it has expired");
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn the_check_says_what_is_open_to_whom() {
    let files = Files::new();
    let (code, output, _) = run(&["gateway", "--check"]).await;
    assert_eq!(code, 0);
    assert!(
        output.contains("INSECURE: an agent gets the key that it claims"),
        "{output}"
    );
    let open = ["gateway", "--clients-listen", "0.0.0.0:7001"];
    let (code, _, errors) = run(&open).await;
    assert_ne!(code, 0);
    assert!(errors.contains("clients-tokens"), "{errors}");
    let config = files.write("gateway.toml", "max-tunnels = 7\nmax-tunels = 8\n");
    let (code, _, errors) = run(&["gateway", "--config", &config]).await;
    assert_ne!(code, 0);
    for part in [&config, "line 2", "max-tunels"] {
        assert!(errors.contains(part), "{errors}");
    }
}

#[tokio::test]
async fn an_agent_gets_its_certificate_for_a_token_once() {
    let files = Files::new();
    files.certs(&["init"]).await;
    files.certs(&["server", "localhost"]).await;
    let token = files.token("enroll", "device").await;
    let token = files.write("token", &token);
    let (server, _reporter) = server().await;
    let gateway = Gateway::start(&[
        "--tls-cert",
        &files.path("server-localhost.pem"),
        "--tls-key",
        &files.path("server-localhost-key.pem"),
        "--agents-ca",
        &files.path("ca.pem"),
        "--enroll-tokens",
        &files.path("enroll"),
        "--enroll-ca-key",
        &files.path("ca-key.pem"),
    ])
    .await;
    let agent = |name: &str| {
        start(&[
            "agent",
            "--gateway",
            &gateway.agents.to_string(),
            "--key",
            "device",
            "--to",
            &server.address().to_string(),
            "--ca",
            &files.path("ca.pem"),
            "--server-name",
            "localhost",
            "--enroll-token-file",
            &token,
            "--cert",
            &files.path(&format!("{name}.pem")),
            "--cert-key",
            &files.path(&format!("{name}-key.pem")),
        ])
    };
    let mut device = agent("device");
    says(&mut device, "connected to").await;
    terminate(&mut device);
    let mut again = agent("device");
    says(&mut again, "connected to").await;
    let mut thief = agent("thief");
    says(&mut thief, "the token is not known, or it was spent").await;
}

#[tokio::test]
async fn who_watches_a_device_hears_no_more_of_it_when_revoked() {
    let files = Files::new();
    let alice = files.token("clients", "alice").await;
    let tokens = files.path("clients");
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("audit");
    let log_file = log.to_str().expect("text");
    let mut gateway = Gateway::start(&["--clients-tokens", &tokens, "--audit-log", log_file]).await;
    let health = |token: &str| {
        let mut request = tonic::Request::new(HealthCheckRequest {
            service: "tunnel.device/device".to_owned(),
        });
        let bearer = format!("Bearer {token}").parse().expect("legal");
        request.metadata_mut().insert("authorization", bearer);
        request
    };
    let mut client = HealthClient::new(gateway.channel());
    let watched = client.watch(health(&alice)).await.expect("alice may");
    let mut statuses = watched.into_inner();
    statuses.message().await.expect("it is watched");
    files.write("clients", "# nobody\n");
    let told = tokio::time::timeout(TIMEOUT, statuses.message()).await;
    let status = told.expect("in time").expect_err("alice is revoked");
    assert_eq!(status.code(), Code::Unauthenticated);
    let mut anonymous = health("");
    anonymous.metadata_mut().remove("authorization");
    client.check(anonymous).await.expect_err("who is that?");
    drop(client);
    terminate(&mut gateway.process);
    let text = fs::read_to_string(&log).expect("a log");
    assert!(text.contains("UNAUTHENTICATED"), "{text}");
}

#[tokio::test]
async fn a_revoked_client_that_does_not_read_sends_no_more() {
    use tokio_stream::StreamExt as _;

    let files = Files::new();
    let alice = files.token("clients", "alice").await;
    let tokens = files.path("clients");
    // Answers at once, and reads requests to their end.
    let (began, mut begins) = tokio::sync::mpsc::unbounded_channel();
    let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let serve = move |request: axum::extract::Request| {
        let (began, ended) = (began.clone(), ended.clone());
        tokio::spawn(async move {
            let mut body = request.into_body().into_data_stream();
            let _ = began.send(());
            while let Some(Ok(_)) = body.next().await {}
            let _ = ended.send(());
        });
        let message = [&[0, 0, 0, 0, 100][..], &[0; 100]].concat();
        let message = tokio_stream::once(Ok::<_, std::convert::Infallible>(message));
        let body = message.chain(tokio_stream::pending());
        let response = http::Response::builder().header("content-type", "application/grpc");
        let response = response.body(axum::body::Body::from_stream(body));
        std::future::ready(response.expect("legal"))
    };
    let routes = axum::Router::new().fallback(serve);
    let server = TcpServer::start(Server::builder(), routes.into()).await;
    let gateway = Gateway::start(&["--clients-tokens", &tokens]).await;
    let mut agent = start(&[
        "agent",
        "--gateway",
        &gateway.agents.to_string(),
        "--key",
        "device",
        "--to",
        &server.address().to_string(),
    ]);
    says(&mut agent, "connected").await;

    let endpoint = Endpoint::from_shared(format!("http://{}", gateway.clients));
    let endpoint = endpoint.expect("an address").initial_stream_window_size(0);
    let channel = endpoint.connect().await.expect("it listens");
    let ticks = tokio::time::interval(std::time::Duration::from_millis(20));
    let ticks = tokio_stream::wrappers::IntervalStream::new(ticks);
    let requests = ticks.map(|_| HealthCheckRequest::default());
    let mut request = tonic::Request::new(requests);
    let bearer = format!("Bearer {alice}").parse().expect("legal");
    request.metadata_mut().insert("authorization", bearer);
    let key = "device".parse().expect("legal");
    request.metadata_mut().insert("tunnel-key", key);
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.expect("connected");
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckRequest>::default();
    let path = http::uri::PathAndQuery::from_static("/a.B/C");
    let _unread = grpc
        .streaming(request, path, codec)
        .await
        .expect("alice may");
    begins.recv().await.expect("the call is there");
    files.write("clients", "# nobody\n");
    let ended = tokio::time::timeout(TIMEOUT, ends.recv()).await;
    assert_eq!(ended, Ok(Some(())), "a revoked client goes on sending");
}
