//! Certificates of a tunnel's peer, seen by its calls.

use tonic::service::Routes;
use tonic::transport::{Channel, ClientTlsConfig, Server, ServerTlsConfig};
use tunnel_client::{ForwardTunnel, TunnelError, endpoint_for_tunnels};
use tunnel_conformance::{Authority, Probe, TcpServer};
use tunnel_server::server_for_tunnels;

use crate::seen::{Calls, a_call};
use crate::support::{client, guarded};

async fn server(authority: &Authority, calls: &Calls) -> TcpServer {
    let handler = calls.handler(&Probe::default());
    let tls = ServerTlsConfig::new()
        .identity(authority.identity("localhost"))
        .client_ca_root(authority.certificate());
    let server = server_for_tunnels(Server::builder().tls_config(tls).expect("valid"));
    TcpServer::start(server, Routes::new(handler.service())).await
}

async fn connect(
    server: &TcpServer,
    tls: ClientTlsConfig,
) -> Result<Channel, tonic::transport::Error> {
    let address = format!("https://localhost:{}", server.address().port());
    let endpoint = Channel::from_shared(address).expect("a valid address");
    let endpoint = endpoint_for_tunnels(endpoint.tls_config(tls).expect("valid"));
    endpoint.connect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_sees_the_certificates_of_its_tunnel_s_peer() {
    guarded(async {
        let authority = Authority::new();
        let calls = Calls::default();
        let server = server(&authority, &calls).await;
        let tls = ClientTlsConfig::new()
            .ca_certificate(authority.certificate())
            .identity(authority.identity("device-17"));
        let channel = connect(&server, tls).await.expect("both sides are trusted");
        let tunnel = ForwardTunnel::new(channel).open().await.expect("it opens");
        for _ in 0..2 {
            a_call(&client(&tunnel)).await;
            let call = calls.take();
            assert_eq!(call.certificates, 1);
            assert!(call.peer.is_some());
        }
    })
    .await;
}

/// The server refuses the handshake, so the error is the channel's, not the tunnel's.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_without_a_certificate_opens_no_tunnel() {
    guarded(async {
        let authority = Authority::new();
        let calls = Calls::default();
        let server = server(&authority, &calls).await;
        let tls = ClientTlsConfig::new().ca_certificate(authority.certificate());
        // With TLS 1.3 a client may see the refusal only after its side of the handshake.
        if let Ok(channel) = connect(&server, tls).await {
            let error = ForwardTunnel::new(channel).open().await;
            let error = error.expect_err("the server requires a certificate");
            assert!(matches!(error, TunnelError::Channel(_)), "{error:?}");
        }
    })
    .await;
}
