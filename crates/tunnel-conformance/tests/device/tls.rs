//! The endpoint configures the connection, including its certificates.

use std::sync::Arc;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use tonic::service::Routes;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};
use tunnel_client::rustls::client::WebPkiServerVerifier;
use tunnel_client::rustls::pki_types::CertificateDer;
use tunnel_client::rustls::{self, RootCertStore};
use tunnel_client::{DownReason, Gateway, PeerCertificates, TunnelError};
use tunnel_conformance::TcpServer;
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

use crate::seen::{Seen, address_in};
use crate::support::{Running, TestGateway, assert_usable, device, guarded};

fn signed() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed([String::from("localhost")]).expect("a certificate")
}

/// A gateway with a certificate, and an endpoint that trusts this certificate or another.
async fn secured(trusted: bool) -> (TestGateway, Endpoint) {
    let own = signed();
    let trust = if trusted {
        own.cert.pem()
    } else {
        signed().cert.pem()
    };
    let (gateway, endpoint) = with_certificate(own).await;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(trust));
    (gateway, endpoint.tls_config(tls).expect("valid"))
}

/// A gateway with a certificate, and an endpoint without settings of TLS.
async fn with_certificate(own: CertifiedKey<KeyPair>) -> (TestGateway, Endpoint) {
    let identity = Identity::from_pem(own.cert.pem(), own.signing_key.serialize_pem());
    let handler = TunnelServiceHandler::builder().build();
    let server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity));
    let server = server_for_tunnels(server.expect("valid"));
    let server = TcpServer::start(server, Routes::new(handler.service())).await;
    let address = format!("https://localhost:{}", server.address().port());
    let endpoint = Endpoint::from_shared(address).expect("a valid address");
    (TestGateway { handler, server }, endpoint)
}

/// A verifier that trusts one certificate.
fn trusts(certificate: &CertificateDer<'static>) -> Arc<WebPkiServerVerifier> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("it is a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
    verifier.build().expect("there is a root")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_sees_the_certificate_of_its_gateway_that_a_verifier_has_accepted() {
    guarded(async {
        let own = signed();
        let certificate = own.cert.der().clone();
        let (gateway, endpoint) = with_certificate(own).await;
        let secured = Gateway::from(endpoint)
            .tls_config_with_verifier(ClientTlsConfig::new(), trusts(&certificate))
            .expect("valid");
        let seen = Seen::default();
        let builder = device(secured).0.layer(seen.layer());
        let device = Running::start(builder.build());
        // Also after a tunnel was opened again.
        for _ in 0..2 {
            assert_eq!(device.handle.connected().await, Ok(()));
            assert_usable(&gateway.client()).await;
            let extensions = seen.take();
            let certificates = extensions.get::<PeerCertificates>();
            let all = certificates.expect("seen").all();
            assert_eq!(all, std::slice::from_ref(&certificate));
            assert_eq!(address_in(&extensions), Some(gateway.server.address()));
            gateway.has(1).await[0].close_with(tonic::Status::aborted("again"));
            device.until(0, |status| !status.is_connected()).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_certificate_a_verifier_does_not_accept_is_an_error_of_the_channel() {
    guarded(async {
        let (_gateway, endpoint) = with_certificate(signed()).await;
        let secured = Gateway::from(endpoint)
            .tls_config_with_verifier(ClientTlsConfig::new(), trusts(signed().cert.der()))
            .expect("valid");
        let error = device(secured).0.serve().await;
        assert!(matches!(error, Err(TunnelError::Channel(_))), "{error:?}");
    })
    .await;
}

#[test]
fn roots_beside_a_verifier_are_refused_at_once() {
    let own = signed();
    let roots = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(own.cert.pem()));
    let gateway = Gateway::from(Endpoint::from_static("https://localhost"));
    let secured = gateway.tls_config_with_verifier(roots, trusts(own.cert.der()));
    assert!(secured.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_serves_and_comes_back_over_tls() {
    guarded(async {
        let (gateway, endpoint) = secured(true).await;
        let _device = Running::start(device(Gateway::from(endpoint)).0.build());
        let tunnel = gateway.has(1).await.remove(0);
        assert_usable(&gateway.client()).await;
        tunnel.close_with(tonic::Status::aborted("again"));
        gateway.has_another_than(&tunnel).await;
        assert_usable(&gateway.client()).await;
    })
    .await;
}

/// The device does not trust the gateway. The failure is not a refusal by the gateway.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_not_trusted_is_an_error_of_the_channel() {
    guarded(async {
        let (gateway, endpoint) = secured(false).await;
        let device = Running::start(device(endpoint).0.build());
        let status = device.until(0, |status| status.attempts() > 2).await;
        assert!(matches!(
            status.last_down_reason(),
            Some(DownReason::NotOpened(TunnelError::Channel(_)))
        ));
        assert!(gateway.handler.tunnels().is_empty());
    })
    .await;
}

/// The device goes only to a server that could also be its gateway.
#[tokio::test(flavor = "multi_thread")]
async fn a_sibling_needs_a_certificate_that_is_valid_for_the_gateway_itself() {
    guarded(async {
        let own = signed();
        let pem = own.cert.pem();
        let key = own.signing_key.serialize_pem();
        let alike = || {
            let signing_key = KeyPair::from_pem(&key).expect("a key");
            CertifiedKey {
                cert: own.cert.clone(),
                signing_key,
            }
        };
        let (home, endpoint) = with_certificate(alike()).await;
        let (alike, at_alike) = with_certificate(alike()).await;
        // Trusted too, but only for its own address.
        let address = generate_simple_self_signed([String::from("127.0.0.1")]);
        let address = address.expect("a certificate");
        let trusted = [pem, address.cert.pem()].map(Certificate::from_pem);
        let (foreign, at_foreign) = with_certificate(address).await;
        let by_address = |of: &Endpoint| -> http::Uri {
            let uri = of.uri().to_string().replace("localhost", "127.0.0.1");
            uri.parse().expect("a valid address")
        };
        let tls = ClientTlsConfig::new().ca_certificates(trusted);
        let endpoint = endpoint.tls_config(tls).expect("valid");
        let device = Running::start(device(endpoint).0.build());
        home.has(1).await;
        // In random order the foreign one is tried first, nearly always.
        let siblings = std::iter::repeat_n(by_address(&at_foreign), 15);
        let siblings = siblings.chain([by_address(&at_alike)]);
        home.handler.set_siblings(siblings);
        home.handler.drain(crate::support::NEVER).await;
        alike.has(1).await;
        assert_usable(&alike.client()).await;
        assert!(foreign.handler.tunnels().is_empty());
        drop(device);
    })
    .await;
}
