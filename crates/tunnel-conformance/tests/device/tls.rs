//! The endpoint configures the connection, including its certificates.

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tonic::service::Routes;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};
use tunnel_client::{DownReason, Gateway, TunnelError};
use tunnel_conformance::TcpServer;
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

use crate::support::{Running, TestGateway, assert_usable, device, guarded};

/// A gateway with a certificate, and an endpoint that trusts this certificate or another.
async fn secured(trusted: bool) -> (TestGateway, Endpoint) {
    let signed = || -> CertifiedKey<_> {
        generate_simple_self_signed([String::from("localhost")]).expect("a certificate")
    };
    let own = signed();
    let trust = if trusted {
        own.cert.pem()
    } else {
        signed().cert.pem()
    };
    let identity = Identity::from_pem(own.cert.pem(), own.signing_key.serialize_pem());
    let handler = TunnelServiceHandler::builder().build();
    let server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity));
    let server = server_for_tunnels(server.expect("valid"));
    let server = TcpServer::start(server, Routes::new(handler.service())).await;
    let address = format!("https://localhost:{}", server.address().port());
    let endpoint = Endpoint::from_shared(address).expect("a valid address");
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(trust));
    let endpoint = endpoint.tls_config(tls).expect("valid");
    (TestGateway { handler, server }, endpoint)
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
