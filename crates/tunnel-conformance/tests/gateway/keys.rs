//! The keys of tunnels.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, ClientTlsConfig, Identity, Server, ServerTlsConfig};
use tonic::{Request, Status};
use tunnel_client::{ForwardTunnel, endpoint_for_tunnels};
use tunnel_conformance::{Authority, Probe, TcpServer};
use tunnel_server::{AffinityKey, Direction, Opening, TunnelServiceHandler, server_for_tunnels};

use crate::support::device::Dial;
use crate::support::{
    Gateway, assert_no_tunnel, callable, guarded, handler, local_device, ready, served,
};

/// A handler whose keys come from a function.
fn keyed(
    key: impl Fn(&Opening) -> Option<AffinityKey> + Send + Sync + 'static,
) -> TunnelServiceHandler {
    TunnelServiceHandler::builder().affinity_key(key).build()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_found_by_the_key_in_its_metadata_and_by_no_other() {
    guarded(async {
        let gateway = Gateway::start().await;
        let seven = gateway.device("device-7").await;
        let eight = gateway.device("device-8").await;
        let handler = &gateway.handler;
        for (name, device) in [("device-7", &seven), ("device-8", &eight)] {
            let channel = handler.key_as_channel(name);
            assert_eq!(channel.key(), Some(&AffinityKey::from(name)));
            for _ in 0..3 {
                let served = served(&channel, "by key").await;
                assert!(device.is(served.tunnel()));
                assert_eq!(served.tunnel().key(), channel.key());
            }
            let [tunnel] = &handler.tunnels_of_key(name)[..] else {
                panic!("one tunnel has the key");
            };
            assert!(device.is(tunnel.info()));
            assert_eq!(device.probe.record("by key").started, 3);
        }
        assert!(handler.tunnels_of_key("device-9").is_empty());
        assert_no_tunnel(&handler.key_as_channel("device-9")).await;
    })
    .await;
}

/// Similar keys are different keys.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_compared_exactly() {
    guarded(async {
        let handler = handler(|builder| builder);
        let _device = local_device(&handler, "Device-7").await;
        for other in ["device-7", "Device-7 ", "Device-", "Device-77", ""] {
            assert!(!handler.key_as_channel(other).is_ready(), "{other:?}");
        }
        assert!(handler.key_as_channel("Device-7").is_ready());
        assert!(handler.key_as_channel(String::from("Device-7")).is_ready());
        assert!(
            handler
                .key_as_channel(AffinityKey::from("Device-7"))
                .is_ready()
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_a_key_is_only_in_the_pool_of_all_devices() {
    guarded(async {
        let handler = handler(|builder| builder);
        let dial = Dial::new(&Probe::default());
        let device = dial
            .clone()
            .dial(handler.service())
            .await
            .expect("accepted");
        let tunnel = ready(&handler, &device).await;
        assert_eq!(tunnel.key(), None);
        assert_eq!(handler.kept_keys(), 0);
        assert!(device.is(served(&handler.as_channel(), "any").await.tunnel()));
        // Metadata that is not text counts as missing.
        let mut request = Request::new(());
        let odd = AsciiMetadataValue::try_from(&[0xe4, 0xf6][..]).expect("opaque");
        request.metadata_mut().insert("device", odd);
        let dial = Dial::new(&Probe::default());
        let odd = InterceptedService::new(handler.service(), move |mut opening: Request<()>| {
            *opening.metadata_mut() = merged(opening.metadata(), request.metadata());
            Ok(opening)
        });
        let odd = dial.dial(odd).await.expect("accepted");
        assert_eq!(ready(&handler, &odd).await.key(), None);
    })
    .await;
}

fn merged(
    one: &tonic::metadata::MetadataMap,
    other: &tonic::metadata::MetadataMap,
) -> tonic::metadata::MetadataMap {
    let mut headers = one.clone().into_headers();
    headers.extend(other.clone().into_headers());
    tonic::metadata::MetadataMap::from_headers(headers)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_may_be_the_peer_s_address() {
    guarded(async {
        let by_address = |opening: &Opening| Some(opening.peer_addr()?.to_string().into());
        let gateway = Gateway::serve(keyed(by_address)).await;
        let handler = &gateway.handler;
        let channel = gateway.connect().await;
        let dial = || Dial::new(&Probe::default());
        // Two tunnels on one connection, and one on another.
        let mut keys = Vec::new();
        for channel in [channel.clone(), channel, gateway.connect().await] {
            let device = dial().dial(channel).await.expect("accepted");
            let tunnel = ready(handler, &device).await;
            let address = tunnel.peer_addr().expect("known").to_string();
            let key = tunnel.key().expect("it has a key").clone();
            assert_eq!(key.as_str(), address);
            keys.push(key);
        }
        assert_eq!(keys[0], keys[1]);
        assert_ne!(keys[0], keys[2]);
        assert_eq!(handler.tunnels_of_key(&keys[0]).len(), 2);
        assert_eq!(handler.key_as_channel(&keys[2]).tunnels().len(), 1);
    })
    .await;
}

/// A key that a layer or an interceptor of the server found.
#[derive(Clone)]
struct Tenant(String);

#[tokio::test(flavor = "multi_thread")]
async fn the_key_may_be_what_an_interceptor_left_in_the_extensions() {
    guarded(async {
        let by_tenant = |opening: &Opening| {
            let tenant = opening.extensions().get::<Tenant>()?;
            Some(AffinityKey::from(tenant.0.as_str()))
        };
        let handler = keyed(by_tenant);
        let checked = |mut request: Request<()>| -> Result<Request<()>, Status> {
            let token = request
                .metadata()
                .get("token")
                .and_then(|t| t.to_str().ok());
            let tenant = token.and_then(|token| token.strip_prefix("of "));
            let tenant = tenant.ok_or_else(|| Status::unauthenticated("no token"))?;
            let tenant = Tenant(tenant.to_owned());
            request.extensions_mut().insert(tenant);
            Ok(request)
        };
        let service = InterceptedService::new(handler.service(), checked);
        let gateway =
            TcpServer::start(server_for_tunnels(Server::builder()), Routes::new(service)).await;
        for tenant in ["blue", "green"] {
            let dial = Dial::new(&Probe::default()).with("token", &format!("of {tenant}"));
            let device = dial.dial(gateway.channel().await).await.expect("accepted");
            ready(&handler, &device).await;
            let served = served(&handler.key_as_channel(tenant), "by tenant").await;
            assert!(device.is(served.tunnel()));
        }
        let nobody = Dial::new(&Probe::default())
            .dial(gateway.channel().await)
            .await;
        let refused = nobody.err().expect("the interceptor refuses");
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);
        assert_eq!(handler.tunnels().len(), 2);
    })
    .await;
}

/// The metadata that the device sends has no influence.
#[tokio::test(flavor = "multi_thread")]
async fn the_key_may_be_the_verified_certificate() {
    guarded(async {
        let authority = Authority::new();
        let tls = ServerTlsConfig::new()
            .identity(authority.identity("localhost"))
            .client_ca_root(authority.certificate());
        let by_certificate = |opening: &Opening| {
            let certificates = opening.request().peer_certs()?;
            Some(STANDARD.encode(certificates.first()?).into())
        };
        let handler = keyed(by_certificate);
        let server = server_for_tunnels(Server::builder().tls_config(tls).expect("valid"));
        let gateway = TcpServer::start(server, Routes::new(handler.service())).await;
        for name in ["device-7", "device-8"] {
            let (certificate, private) = authority.issue(name);
            let identity = Identity::from_pem(&certificate, private);
            // What stands between the first and the last line.
            let lines = certificate.lines().filter(|line| !line.starts_with('-'));
            let key: String = lines.collect();
            let tls = ClientTlsConfig::new()
                .ca_certificate(authority.certificate())
                .identity(identity);
            let address = format!("https://localhost:{}", gateway.address().port());
            let endpoint = Channel::from_shared(address).expect("a valid address");
            let endpoint = endpoint_for_tunnels(endpoint.tls_config(tls).expect("valid"));
            let channel = endpoint.connect().await.expect("both sides are known");
            let dial = Dial::new(&Probe::default()).named("device-7");
            let device = dial.dial(channel).await.expect("accepted");
            ready(&handler, &device).await;
            let served = served(&handler.key_as_channel(&*key), "by certificate").await;
            assert!(device.is(served.tunnel()));
        }
        assert!(handler.tunnels_of_key("device-7").is_empty());
        callable(&handler, 2).await;
    })
    .await;
}

/// A forward tunnel is found by its key, but no call from this end goes through it.
#[tokio::test(flavor = "multi_thread")]
async fn a_forward_tunnel_has_a_key_but_takes_no_calls_from_the_gateway() {
    guarded(async {
        let handler = handler(|builder| builder);
        let mut metadata = tonic::metadata::MetadataMap::new();
        metadata.insert("device", "device-7".parse().expect("legal"));
        let opening = ForwardTunnel::new(handler.service()).metadata(metadata);
        let forward = opening.open().await.expect("accepted");
        let [tunnel] = &handler.tunnels_of_key("device-7")[..] else {
            panic!("one tunnel has the key");
        };
        assert_eq!(tunnel.direction(), Direction::Forward);
        assert!(tunnel.is_ready() && tunnel.channel().is_none());
        assert!(handler.all_reverse_tunnels().is_empty());
        for channel in [handler.as_channel(), handler.key_as_channel("device-7")] {
            assert!(!channel.is_ready());
            assert_no_tunnel(&channel).await;
        }
        assert_eq!(
            handler.close_key_with("device-7", Status::aborted("kicked")),
            1
        );
        forward.ended().await;
        crate::support::no_tunnels(&handler).await;
        assert_eq!(handler.kept_keys(), 0);
    })
    .await;
}
