//! What handlers behind a reverse tunnel see of their gateway.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::Extensions;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::transport::{Endpoint, Server};
use tower::util::MapRequestLayer;
use tunnel_client::{AffinityKey, Gateway, TunnelInfo};
use tunnel_server::Opening;

use crate::support::{Running, TestGateway, assert_usable, device, guarded};

/// The extensions of the last call.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Option<Extensions>>>);

impl Seen {
    pub(crate) fn layer(
        &self,
    ) -> MapRequestLayer<impl Fn(http::Request<Body>) -> http::Request<Body> + Clone + use<>> {
        let seen = self.0.clone();
        MapRequestLayer::new(move |request: http::Request<Body>| {
            *seen.lock().expect("not poisoned") = Some(request.extensions().clone());
            request
        })
    }

    pub(crate) fn take(&self) -> Extensions {
        let seen = self.0.lock().expect("not poisoned").take();
        seen.expect("a call came")
    }
}

/// The address of the peer, as tonic finds it.
pub(crate) fn address_in(extensions: &Extensions) -> Option<SocketAddr> {
    let request = tonic::Request::from_parts(MetadataMap::new(), extensions.clone(), ());
    request.remote_addr()
}

/// A gateway that gives each tunnel a key.
async fn gateway(key: &'static str) -> TestGateway {
    let key_of = move |_: &Opening| Some(AffinityKey::from(key));
    TestGateway::start_with(|builder| builder.affinity_key(key_of)).await
}

/// What a call sees of a gateway that is dialled so.
async fn seen_of(gateway: &TestGateway, dialled: Gateway) -> Extensions {
    let seen = Seen::default();
    let builder = device(dialled).0.layer(seen.layer());
    let device = Running::start(builder.build());
    assert_eq!(device.handle.connected().await, Ok(()));
    assert_usable(&gateway.client()).await;
    let extensions = seen.take();
    let info = extensions.get::<TunnelInfo>().expect("always there");
    assert_eq!(info.peer_addr(), address_in(&extensions));
    assert_eq!(device.handle.tunnels()[0].key(), info.key());
    device.handle.close().await;
    extensions
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_sees_the_address_of_its_gateway_and_the_key_that_it_gave() {
    guarded(async {
        let key = "device 17, \u{fc}ber 100%";
        let gateway = gateway(key).await;
        let extensions = seen_of(&gateway, Gateway::from(gateway.endpoint())).await;
        assert_eq!(address_in(&extensions), Some(gateway.server.address()));
        let info = extensions.get::<TunnelInfo>().expect("just seen");
        assert_eq!(info.key(), Some(&AffinityKey::from(key)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_sees_no_address_of_a_gateway_without_a_network_and_no_key_that_was_not_given() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let extensions = seen_of(&gateway, Gateway::over(gateway.handler.service())).await;
        assert_eq!(address_in(&extensions), None);
        let info = extensions.get::<TunnelInfo>().expect("just seen");
        assert_eq!(info.key(), None);
    })
    .await;
}

/// Linux has all of 127.0.0.0/8 on its loopback interface.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_dialled_from_the_local_address_that_was_set() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let local = "127.0.0.9".parse().expect("an address");
        let dialled = Gateway::from(gateway.endpoint()).local_address(Some(local));
        let device = Running::start(device(dialled).0.build());
        assert_eq!(device.handle.connected().await, Ok(()));
        let peer = gateway.has(1).await[0].peer_addr();
        assert_eq!(peer.map(|peer| peer.ip()), Some(local));
    })
    .await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_dialled_at_a_unix_socket() {
    guarded(async {
        let gateway = gateway("17").await;
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("gateway");
        let listener = tokio::net::UnixListener::bind(&path).expect("a free path");
        let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
        let routes = Routes::new(gateway.handler.service());
        tokio::spawn(
            Server::builder()
                .add_routes(routes)
                .serve_with_incoming(incoming),
        );
        let endpoint = Endpoint::from_shared(format!("unix:{}", path.display())).expect("legal");
        let extensions = seen_of(&gateway, Gateway::from(endpoint)).await;
        assert_eq!(address_in(&extensions), None);
    })
    .await;
}
