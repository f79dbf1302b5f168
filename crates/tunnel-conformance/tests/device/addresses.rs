//! A name with several addresses: each is a gateway. Linux has all of 127.0.0.0/8 on its loopback interface.

#![cfg(target_os = "linux")]

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use http::uri::Authority;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use tonic::service::Routes;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};
use tower::util::MapRequestLayer;
use tunnel_client::{ForwardChannel, Gateway, LinkState, Lookup, StopReason, TunnelError};
use tunnel_conformance::TcpServer;
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

use crate::dns::TestDns;
use crate::support::{
    LongCall, NEVER, Running, TestGateway, assert_usable, device, eventually, guarded, no_waits,
};

const NAME: &str = "gateways.test";
const OFTEN: Duration = Duration::from_millis(20);

fn ip(last: u8) -> IpAddr {
    [127, 0, 0, last].into()
}

fn port(gateway: &TestGateway) -> u16 {
    gateway.server.address().port()
}

/// A gateway at 127.0.0.1, and others at further addresses with the same port.
async fn gateways(count: u8) -> Vec<TestGateway> {
    let mut gateways = vec![TestGateway::start().await];
    for last in 2..=count {
        let address = SocketAddr::new(ip(last), port(&gateways[0]));
        gateways.push(TestGateway::start_at(address, |builder| builder).await);
    }
    gateways
}

fn named(port: u16) -> Gateway {
    let endpoint = Endpoint::from_shared(format!("http://{NAME}:{port}")).expect("a legal URI");
    Gateway::from(endpoint).name("all")
}

fn shown(device: &Running) -> Vec<String> {
    let links = device.handle.links();
    links.iter().map(|l| l.gateway().to_owned()).collect()
}

/// How the gateway at an address is named.
fn at(last: u8, port: u16) -> String {
    format!("all (127.0.0.{last}:{port})")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_address_of_a_name_is_a_gateway_of_its_own() {
    guarded(async {
        let gateways = gateways(3).await;
        let port = port(&gateways[0]);
        let dns = TestDns::start().await;
        dns.set(NAME, &[ip(1), ip(2), ip(3)]);
        let all = named(port).each_address(dns.lookup());
        let device = Running::start(device(all).0.tunnels_per_gateway(2).build());
        for gateway in &gateways {
            gateway.has(2).await;
            assert_usable(&gateway.client()).await;
        }
        assert_eq!(device.handle.all_connected().await, Ok(()));
        let mut names = shown(&device);
        names.sort();
        names.dedup();
        assert_eq!(names, [at(1, port), at(2, port), at(3, port)]);
        assert_eq!(device.handle.links().len(), 6);

        // The name stands for all of them.
        assert!(!device.handle.remove_gateway(&at(1, port)));
        assert!(device.handle.remove_gateway("all"));
        for gateway in &gateways {
            gateway.is_left().await;
        }
        eventually(|| device.handle.links().is_empty()).await;

        let all = named(port).each_address(dns.lookup());
        device.handle.add_gateway(all).expect("it runs");
        for gateway in &gateways {
            gateway.has(2).await;
        }
        device.handle.drain(NEVER).await;
        device.ends_with(StopReason::Drained).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_come_and_go_with_the_addresses_of_their_name() {
    guarded(async {
        let gateways = gateways(2).await;
        let port = port(&gateways[0]);
        let dns = TestDns::start().await;
        dns.set(NAME, &[ip(1)]);
        let all = named(port).each_address(dns.lookup().interval(OFTEN));
        let (builder, probe) = device(all);
        let device = Running::start(builder.build());
        assert_eq!(device.handle.all_connected().await, Ok(()));
        let first = gateways[0].has(1).await.remove(0);
        assert_eq!(shown(&device), [at(1, port)]);
        let call = LongCall::begin(&gateways[0].client(), &probe, "at the first").await;

        dns.set(NAME, &[ip(2), ip(1)]);
        gateways[1].has(1).await;
        assert!(first.is_ready());
        dns.set(NAME, &[ip(2)]);
        gateways[0].has(0).await;
        call.finish().await.expect_success();
        gateways[0].is_left().await;
        eventually(|| shown(&device) == [at(2, port)]).await;
        assert_usable(&gateways[1].client()).await;
        assert_eq!(device.handle.tunnels().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_that_fails_or_finds_nothing_changes_nothing() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let dns = TestDns::start().await;
        dns.set(NAME, &[ip(1)]);
        let all = named(port(&gateway)).each_address(dns.lookup().interval(OFTEN));
        let device = Running::start(device(all).0.build());
        let tunnel = gateway.has(1).await.remove(0);
        dns.set(NAME, &[]);
        dns.asked_again(6).await;
        for code in [ResponseCode::NXDomain, ResponseCode::ServFail] {
            dns.fail(NAME, code);
            dns.asked_again(6).await;
        }
        assert!(tunnel.is_ready());
        assert_eq!(shown(&device), [at(1, port(&gateway))]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_without_addresses_is_shown_with_the_reason_until_it_has_some() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let dns = TestDns::start().await;
        let all = || named(port(&gateway)).each_address(dns.lookup());
        let device = Running::start(device(all()).0.build());
        let status = device
            .until(0, |status| {
                status.attempts() > 2 && matches!(status.state(), LinkState::BackingOff { .. })
            })
            .await;
        assert_eq!(status.gateway(), "all");
        let reason = status.last_down_reason().expect("it failed").to_string();
        assert!(
            reason.contains("the lookup of the gateway's addresses failed"),
            "{reason}"
        );

        // A channel fails its first attempt.
        let error = ForwardChannel::builder(all()).connect().await;
        let Err(TunnelError::Channel(status)) = error else {
            panic!("there is no address: {error:?}");
        };
        assert!(
            status
                .message()
                .contains("the lookup of the gateway's addresses failed"),
            "{status:?}"
        );

        dns.set(NAME, &[ip(1)]);
        gateway.has(1).await;
        assert_eq!(device.handle.all_connected().await, Ok(()));
        assert_eq!(shown(&device), [at(1, port(&gateway))]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_looked_up_soon_after_a_tunnel_has_failed() {
    guarded(async {
        let gateways = gateways(2).await;
        let dns = TestDns::start().await;
        dns.set(NAME, &[ip(1)]);
        let lookup = dns.lookup().interval(NEVER);
        let all = named(port(&gateways[0])).each_address(lookup);
        let _device = Running::start(device(all).0.build());
        gateways[0].has(1).await;
        dns.set(NAME, &[ip(2)]);
        gateways[0].server.kill();
        gateways[1].has(1).await;
        assert_usable(&gateways[1].client()).await;
    })
    .await;
}

/// A gateway with a certificate, and the authority of the last request.
async fn with_certificate(
    own: &CertifiedKey<KeyPair>,
) -> (TestGateway, Arc<Mutex<Option<Authority>>>) {
    let identity = Identity::from_pem(own.cert.pem(), own.signing_key.serialize_pem());
    let handler = TunnelServiceHandler::builder().build();
    let server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity));
    let server = server_for_tunnels(server.expect("valid"));
    let authority = Arc::new(Mutex::new(None));
    let seen = authority.clone();
    let routes = Routes::new(handler.service()).into_axum_router();
    let routes = routes.layer(MapRequestLayer::new(move |request: http::Request<_>| {
        *seen.lock().expect("not poisoned") = request.uri().authority().cloned();
        request
    }));
    let server = TcpServer::start(server, Routes::from(routes)).await;
    (TestGateway { handler, server }, authority)
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_verifies_the_name_and_requests_have_it_as_their_authority() {
    guarded(async {
        let own = generate_simple_self_signed([NAME.to_owned()]).expect("a certificate");
        let (gateway, authority) = with_certificate(&own).await;
        let dns = TestDns::start().await;
        dns.set(NAME, &[ip(1)]);
        dns.set("another.test", &[ip(1)]);
        let trust = Certificate::from_pem(own.cert.pem());
        let endpoint = |name: &str| {
            let endpoint = Endpoint::from_shared(format!("https://{name}:{}", port(&gateway)));
            let tls = ClientTlsConfig::new().ca_certificate(trust.clone());
            let endpoint = endpoint.expect("a legal URI").tls_config(tls);
            Gateway::from(endpoint.expect("valid")).each_address(dns.lookup())
        };
        let _device = Running::start(device(endpoint(NAME)).0.build());
        gateway.has(1).await;
        assert_usable(&gateway.client()).await;
        let seen = authority.lock().expect("not poisoned").take();
        let wanted = format!("{NAME}:{}", port(&gateway));
        assert_eq!(seen.expect("a request came").as_str(), wanted);

        // The same address by a name that the certificate has not.
        let error = device(endpoint("another.test")).0.serve().await;
        assert!(matches!(error, Err(TunnelError::Channel(_))), "{error:?}");

        // A sibling has the certificate of the name too, but requests have its own address.
        let (sibling, authority) = with_certificate(&own).await;
        let address = format!("127.0.0.1:{}", port(&sibling));
        let uri: http::Uri = format!("https://{address}").parse().expect("a legal URI");
        gateway.handler.set_siblings([uri]);
        gateway.handler.drain(NEVER).await;
        sibling.has(1).await;
        assert_usable(&sibling.client()).await;
        let seen = authority.lock().expect("not poisoned").take();
        assert_eq!(seen.expect("a request came").as_str(), address);
    })
    .await;
}

/// It is at neither the name nor another of its addresses, and the device goes where it has no tunnel yet.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_a_name_leads_to_a_sibling_that_is_at_none_of_the_others() {
    guarded(async {
        let gateways = gateways(3).await;
        let port = port(&gateways[0]);
        let dns = TestDns::start().await;
        dns.set(NAME, &[ip(1), ip(2)]);
        let all = named(port).each_address(dns.lookup().interval(NEVER));
        let backoff = no_waits().initial(NEVER).cap(NEVER);
        let builder = device(all.follow_siblings(true)).0.backoff(backoff);
        let device = Running::start(builder.build());
        for gateway in &gateways[..2] {
            gateway.has(1).await;
        }
        assert_eq!(device.handle.all_connected().await, Ok(()));
        let sibling = |last| -> http::Uri {
            let uri = format!("http://127.0.0.{last}:{port}");
            uri.parse().expect("a legal URI")
        };
        // In random order the third would seldom be first.
        let siblings = std::iter::repeat_n(sibling(2), 15).chain([sibling(3)]);
        gateways[0].handler.set_siblings(siblings);
        gateways[0].handler.drain(NEVER).await;
        gateways[2].has(1).await;
        assert_usable(&gateways[2].client()).await;
        gateways[1].has(1).await;
        let links = device.handle.links();
        let drained = links.iter().find(|link| link.gateway() == at(1, port));
        let fallback = drained.and_then(|link| link.fallback_tunnel());
        let shown = fallback.map(|fallback| fallback.gateway().to_owned());
        assert_eq!(shown, Some(format!("http://127.0.0.3:{port}")));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn srv_records_name_gateways_with_their_ports() {
    guarded(async {
        let gateways = [TestGateway::start().await, TestGateway::start().await];
        let dns = TestDns::start().await;
        dns.set("one.test", &[ip(1)]);
        let [first, second] = [port(&gateways[0]), port(&gateways[1])];
        let records = [
            (1, first, "one.test"),
            (1, second, "one.test"),
            (1, 9, "none.test"),
        ];
        dns.set_srv("_tunnel._tcp.test", &records);
        // The port of the endpoint is not used.
        let all = named(1).each_address(dns.srv("_tunnel._tcp.test"));
        let device = Running::start(device(all).0.build());
        for gateway in &gateways {
            gateway.has(1).await;
        }
        let mut names = shown(&device);
        names.sort();
        let mut wanted = [at(1, first), at(1, second)];
        wanted.sort();
        assert_eq!(names, wanted);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_priority_of_srv_records_is_used_while_all_before_it_fail() {
    guarded(async {
        let gateways = gateways(2).await;
        let port = port(&gateways[0]);
        let dns = TestDns::start().await;
        dns.set("first.test", &[ip(1)]);
        dns.set("second.test", &[ip(2)]);
        dns.set_srv(
            "_tunnel._tcp.test",
            &[(20, port, "second.test"), (10, port, "first.test")],
        );
        let lookup = dns.srv("_tunnel._tcp.test").interval(OFTEN);
        let device = Running::start(device(named(port).each_address(lookup)).0.build());
        gateways[0].has(1).await;
        dns.asked_again(10).await;
        assert_eq!(shown(&device), [at(1, port)]);
        gateways[0].server.kill();
        gateways[1].has(1).await;
        let renewed = TestGateway::start_at(SocketAddr::new(ip(1), port), |builder| builder).await;
        renewed.has(1).await;
        gateways[1].is_left().await;
        eventually(|| shown(&device) == [at(1, port)]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_addresses_some_are_used_and_kept() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let port = port(&gateway);
        let dns = TestDns::start().await;
        let many: Vec<_> = (11..=60).map(ip).collect();
        dns.set(NAME, &many);
        let lookup = dns.lookup().interval(OFTEN).max_addresses(3);
        let lookup = lookup.filter(|address| address.ip() != ip(11));
        let device = Running::start(device(named(port).each_address(lookup)).0.build());
        let are_found = |links: &[String]| links.len() == 3 && !links.contains(&"all".to_owned());
        eventually(|| are_found(&shown(&device))).await;
        let chosen = shown(&device);
        assert!(!chosen.contains(&at(11, port)));
        dns.asked_again(10).await;
        assert_eq!(shown(&device), chosen);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tunnel_is_opened_to_the_first_address_that_answers() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let dns = TestDns::start().await;
        dns.set(NAME, &[ip(77), ip(1), ip(78)]);
        let all = named(port(&gateway)).each_address(dns.lookup());
        let server = device(all).0.build();
        let serving = tokio::spawn(async move { server.serve().await });
        gateway.has(1).await[0].close_with(tonic::Status::ok(""));
        let reason = serving.await.expect("it does not panic");
        reason.expect("it was opened");
    })
    .await;
}

/// The system has this name in its hosts file, which both read. Its IPv6 address may be there too.
#[tokio::test(flavor = "multi_thread")]
async fn the_addresses_that_the_system_knows_are_found_with_and_without_dns() {
    guarded(async {
        let gateway = TestGateway::start().await;
        for lookup in [Lookup::system(), Lookup::dns()] {
            let endpoint = format!("http://localhost:{}", port(&gateway));
            let endpoint = Endpoint::from_shared(endpoint).expect("a legal URI");
            let all = Gateway::from(endpoint).name("all");
            let all = all.each_address(lookup.filter(|address| address.is_ipv4()));
            let device = Running::start(device(all).0.build());
            assert_eq!(device.handle.connected().await, Ok(()));
            eventually(|| shown(&device) == [at(1, port(&gateway))]).await;
            device.handle.close().await;
        }
    })
    .await;
}
