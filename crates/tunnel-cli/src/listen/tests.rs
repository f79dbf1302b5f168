use std::path::PathBuf;

use rcgen::{CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
use tonic::transport::server::Connected;

use super::*;

/// A CA, and a directory for files.
struct Ca {
    dir: TempDir,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("legal").pem();
        Self {
            dir: TempDir::new().expect("a directory"),
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate and its key.
    fn issue(&self, name: &str, serial: u8) -> (String, String) {
        let mut params = CertificateParams::new([name.to_owned()]).expect("legal");
        params.serial_number = Some(vec![serial].into());
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        (certificate.pem(), key.serialize_pem())
    }

    fn crl(&self, serials: &[u8]) -> String {
        let time = rcgen::date_time_ymd(2020, 1, 1);
        let revoked = serials.iter().map(|serial| rcgen::RevokedCertParams {
            serial_number: vec![*serial].into(),
            revocation_time: time,
            reason_code: None,
            invalidity_date: None,
        });
        let params = rcgen::CertificateRevocationListParams {
            this_update: time,
            next_update: time + Duration::from_secs(1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let crl = params.signed_by(&self.issuer).expect("signed");
        crl.pem().expect("PEM")
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    fn files(&self, client_auth: ClientAuth) -> TlsFiles {
        let (cert, key) = self.issue("localhost", 1);
        TlsFiles {
            cert: self.write("cert", &cert),
            key: self.write("key", &key),
            client_ca: Some(self.write("ca", &self.pem)),
            client_crl: Some(self.write("crl", &self.crl(&[]))),
            client_auth,
        }
    }

    /// Connects, sends `request` and reads to the end. It fails if the gateway refuses the certificate.
    async fn dial(&self, at: SocketAddr, identity: Option<&(String, String)>) -> io::Result<u8> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("PEM");
        roots.add(ca).expect("a CA");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("legal")
            .with_root_certificates(roots);
        let mut config = match identity {
            Some((cert, key)) => {
                let cert = CertificateDer::from_pem_slice(cert.as_bytes()).expect("PEM");
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
                builder
                    .with_client_auth_cert(vec![cert], key)
                    .expect("legal")
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from("localhost").expect("a name");
        let tcp = TcpStream::connect(at).await?;
        let mut tls = TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await?;
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        tls.read_u8().await
    }
}

fn options(tls: Option<TlsFiles>) -> ListenOptions {
    ListenOptions {
        tls,
        max_handshakes: 4,
        proxy_protocol: false,
    }
}

async fn listen(options: ListenOptions) -> Listener {
    let any = "127.0.0.1:0".parse().expect("an address");
    Listener::bind(any, options).await.expect("bound")
}

/// Answers each connection with the number of certificates of the client.
async fn serve(options: ListenOptions) -> (SocketAddr, Arc<Tls>) {
    let listener = listen(options).await;
    let (address, tls) = (listener.local_addr(), listener.tls().expect("TLS"));
    let Incoming::Tls(mut incoming) = listener.incoming() else {
        panic!("plain");
    };
    tokio::spawn(async move {
        while let Some(Ok(mut conn)) = incoming.next().await {
            let info = conn.connect_info();
            let certificates = info
                .peer_certs()
                .map_or(0, |certificates| certificates.len());
            let _ = conn
                .write_u8(u8::try_from(certificates).expect("few"))
                .await;
            let _ = conn.shutdown().await;
        }
    });
    (address, tls)
}

#[tokio::test]
async fn plain_connections_know_their_peer() {
    let listener = listen(options(None)).await;
    let address = listener.local_addr();
    let Incoming::Plain(mut incoming) = listener.incoming() else {
        panic!("TLS");
    };
    let client = TcpStream::connect(address).await.expect("connected");
    let conn = incoming.next().await.expect("endless").expect("accepted");
    let info = conn.connect_info();
    assert_eq!(info.remote_addr(), client.local_addr().ok());
    assert_eq!(info.local_addr(), Some(address));
}

#[tokio::test]
async fn behind_a_balancer_the_client_is_named_by_its_header() {
    let proxied = ListenOptions {
        proxy_protocol: true,
        ..options(None)
    };
    let listener = listen(proxied).await;
    let address = listener.local_addr();
    let Incoming::Plain(mut incoming) = listener.incoming() else {
        panic!("TLS");
    };
    // One that sends nothing, and one without a header, hold nobody up.
    let _silent = TcpStream::connect(address).await.expect("connected");
    let mut bare = TcpStream::connect(address).await.expect("connected");
    bare.write_all(b"PRI * HTTP/2.0\r\n\r\n")
        .await
        .expect("sent");
    let mut client = TcpStream::connect(address).await.expect("connected");
    let header = b"PROXY TCP4 192.0.2.1 192.0.2.2 9 8\r\n!";
    client.write_all(header).await.expect("sent");
    let mut conn = incoming.next().await.expect("endless").expect("accepted");
    let source = "192.0.2.1:9".parse().expect("an address");
    assert_eq!(conn.connect_info().remote_addr(), Some(source));
    assert_eq!(conn.read_u8().await.expect("a byte"), b'!');
    assert!(bare.read_u8().await.is_err(), "it was not closed");
}

#[tokio::test]
async fn a_required_certificate_is_required() {
    let ca = Ca::new();
    let (address, _) = serve(options(Some(ca.files(ClientAuth::Required)))).await;
    let device = ca.issue("device", 2);
    assert_eq!(ca.dial(address, Some(&device)).await.expect("known"), 1);
    assert!(ca.dial(address, None).await.is_err());
    let stranger = Ca::new().issue("device", 2);
    assert!(ca.dial(address, Some(&stranger)).await.is_err());
    assert_eq!(ca.dial(address, Some(&device)).await.expect("known"), 1);
}

#[tokio::test]
async fn an_optional_certificate_may_be_absent_but_not_bad() {
    let ca = Ca::new();
    let (address, _) = serve(options(Some(ca.files(ClientAuth::Optional)))).await;
    assert_eq!(ca.dial(address, None).await.expect("without"), 0);
    let stranger = Ca::new().issue("device", 2);
    assert!(ca.dial(address, Some(&stranger)).await.is_err());
}

#[tokio::test]
async fn new_connections_follow_the_files() {
    let ca = Ca::new();
    let (address, tls) = serve(options(Some(ca.files(ClientAuth::Required)))).await;
    let device = ca.issue("device", 2);
    assert!(ca.dial(address, Some(&device)).await.is_ok());
    assert!(!tls.reload().expect("as before"));
    ca.write("crl", "nonsense");
    assert!(tls.reload().is_err());
    assert!(ca.dial(address, Some(&device)).await.is_ok());
    ca.write("crl", &ca.crl(&[2]));
    // The certificate of another key.
    ca.write("cert", &ca.issue("localhost", 3).0);
    let error = format!("{:#}", tls.reload().expect_err("they differ"));
    assert!(error.contains("do not go together"), "{error}");
    let (cert, key) = ca.issue("localhost", 4);
    ca.write("cert", &cert);
    ca.write("key", &key);
    assert!(tls.reload().expect("legal"));
    assert!(ca.dial(address, Some(&device)).await.is_err());
    let other = ca.issue("device", 5);
    assert!(ca.dial(address, Some(&other)).await.is_ok());
}

#[tokio::test]
async fn absent_files_are_named() {
    let ca = Ca::new();
    let files = TlsFiles {
        key: ca.dir.path().join("nowhere"),
        ..ca.files(ClientAuth::Required)
    };
    let error = Tls::open(files).expect_err("absent");
    assert!(format!("{error:#}").contains("nowhere"), "{error:#}");
}

#[tokio::test]
async fn tonic_serves_the_connections_and_tells_certificate_and_client() {
    use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
    use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

    let ca = Ca::new();
    let listener = listen(options(Some(ca.files(ClientAuth::Required)))).await;
    let address = listener.local_addr();
    let Incoming::Tls(incoming) = listener.incoming() else {
        panic!("plain");
    };
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let see = move |request: tonic::Request<()>| {
        let info = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
        let info = info.expect("the information of TLS").clone();
        let _ = tell.send((info.peer_certs(), info.get_ref().remote_addr()));
        Ok(request)
    };
    let (_, health) = tonic_health::server::health_reporter();
    let serving = tonic::transport::Server::builder()
        .layer(tonic::service::InterceptorLayer::new(see))
        .add_service(health)
        .serve_with_incoming(incoming);
    let serving = tokio::spawn(serving);

    let (cert, key) = ca.issue("device", 2);
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&ca.pem))
        .identity(Identity::from_pem(cert, key))
        .domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("legal");
    let endpoint = endpoint.tls_config(tls).expect("legal");
    let channel = endpoint.connect().await.expect("connected");
    let request = HealthCheckRequest::default();
    let response = HealthClient::new(channel).check(request).await;
    response.expect("answered");
    let (certificates, remote) = told.recv().await.expect("told");
    assert_eq!(certificates.expect("a certificate").len(), 1);
    assert!(remote.is_some_and(|remote| remote.ip().is_loopback()));
    serving.abort();
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_frees_its_place() {
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = tcp.local_addr().expect("bound");
    let mut conns = Vec::new();
    for _ in 0..2 {
        let _client = TcpStream::connect(address).await.expect("connected");
        let (stream, peer) = tcp.accept().await.expect("accepted");
        conns.push(prepare(stream, peer).expect("prepared"));
    }
    let (silent, good) = (conns[0].peer(), conns[1].peer());
    let shake = move |conn: Conn| async move {
        if conn.peer() == silent {
            return std::future::pending().await;
        }
        Ok(conn.peer())
    };
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let mut done = std::pin::pin!(handshakes(stream::iter(conns), 1, shake));
    assert_eq!(done.next().await, Some(good));
    assert!(began.elapsed() < HANDSHAKE_TIMEOUT, "others have waited");
    assert!(done.next().await.is_none());
}

/// Connects as a client behind a balancer.
async fn from(client: &str, gateway: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(gateway).await.expect("connected");
    let header = format!("PROXY TCP4 {client} 192.0.2.200 9 8\r\n");
    stream.write_all(header.as_bytes()).await.expect("sent");
    stream
}

#[tokio::test]
async fn an_address_takes_a_quarter_of_the_handshakes() {
    let ca = Ca::new();
    let proxied = ListenOptions {
        proxy_protocol: true,
        max_handshakes: 8,
        ..options(Some(ca.files(ClientAuth::Required)))
    };
    let (address, _) = serve(proxied).await;
    let _first = from("192.0.2.1", address).await;
    let _second = from("192.0.2.1", address).await;
    // The first two are silent, and the others are closed at once.
    for _ in 0..8 {
        let mut closed = from("192.0.2.1", address).await;
        let read = tokio::time::timeout(Duration::from_secs(5), closed.read_u8());
        assert!(read.await.expect("no answer").is_err());
    }
    let mut other = from("192.0.2.2", address).await;
    let silence = tokio::time::timeout(Duration::from_millis(300), other.read_u8());
    assert!(silence.await.is_err(), "it was closed");
}

#[tokio::test]
async fn an_address_takes_a_quarter_of_the_connections() {
    let proxied = ListenOptions {
        proxy_protocol: true,
        ..options(None)
    };
    let mut listener = listen(proxied).await;
    listener.max_connections = 4;
    let address = listener.local_addr();
    let Incoming::Plain(mut incoming) = listener.incoming() else {
        panic!("TLS");
    };
    let _first = from("192.0.2.1", address).await;
    let first = incoming.next().await.expect("endless").expect("accepted");
    let mut second = from("192.0.2.1", address).await;
    assert!(second.read_u8().await.is_err(), "it was not closed");
    let _other = from("192.0.2.2", address).await;
    let other = incoming.next().await.expect("endless").expect("accepted");
    let remote = other.connect_info().remote_addr();
    assert_eq!(remote, Some("192.0.2.2:9".parse().expect("an address")));
    drop(first);
    let _third = from("192.0.2.1", address).await;
    incoming
        .next()
        .await
        .expect("endless")
        .expect("there is room");
}
