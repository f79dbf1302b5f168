//! What a tunnelled call sees of its tunnel.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::service::Routes;
use tonic::service::interceptor::{InterceptedService, InterceptorLayer};
use tonic::transport::Server;
use tonic::{Request, Status};
use tower::ServiceBuilder;
use tunnel_client::ForwardTunnel;
use tunnel_conformance::client::run;
use tunnel_conformance::metadata::every_byte;
use tunnel_conformance::proto::Script;
use tunnel_conformance::service::scripted;
use tunnel_conformance::{Client, Kind, Probe, TcpServer};
use tunnel_server::{Direction, TunnelId, TunnelInfo, TunnelServiceHandler, server_for_tunnels};

use crate::support::{Far, client, guarded, one_request};

/// What an interceptor saw of one tunnelled call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) certificates: usize,
    tunnel: Option<(TunnelId, Direction)>,
    tenant: Vec<String>,
    bytes: Option<Vec<u8>>,
    mark: Option<Mark>,
}

/// An extension added by a layer of the outer server.
#[derive(Clone, Debug, PartialEq)]
struct Mark(&'static str);

/// Records every tunnelled call.
#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<Vec<Call>>>);

impl Calls {
    fn note(&self, request: &Request<()>) {
        let info = request.extensions().get::<TunnelInfo>();
        let metadata = info.map(|info| info.metadata().clone());
        let metadata = metadata.unwrap_or_default();
        let tenant = metadata.get_all("tenant").iter();
        let call = Call {
            peer: request.remote_addr(),
            certificates: request.peer_certs().map_or(0, |certs| certs.len()),
            tunnel: info.map(|info| (info.id(), info.direction())),
            tenant: tenant
                .map(|v| v.to_str().expect("text").to_owned())
                .collect(),
            bytes: metadata
                .get_bin("tenant-bin")
                .map(|v| v.to_bytes().expect("base64").to_vec()),
            mark: request.extensions().get::<Mark>().cloned(),
        };
        self.0.lock().expect("not poisoned").push(call);
    }

    /// The only call since the last `take`.
    pub(crate) fn take(&self) -> Call {
        let mut calls = self.0.lock().expect("not poisoned");
        assert_eq!(calls.len(), 1, "one call came: {calls:?}");
        calls.remove(0)
    }

    /// The scripted service behind an interceptor that records every call.
    pub(crate) fn handler(&self, probe: &Probe) -> TunnelServiceHandler {
        let calls = self.clone();
        let note = move |request: Request<()>| {
            calls.note(&request);
            Ok(request)
        };
        TunnelServiceHandler::builder()
            .add_service(InterceptedService::new(scripted(probe), note))
            .build()
    }
}

pub(crate) async fn a_call(client: &Client) {
    let script = Script::named("looks").receive_all().send(1, 1, 1);
    let outcome = run(client, Kind::Unary, &script, one_request()).await;
    outcome.expect_success();
}

async fn far(calls: &Calls) -> Far {
    let probe = Probe::default();
    let handler = calls.handler(&probe);
    let routes = Routes::new(handler.service());
    let server = TcpServer::start(server_for_tunnels(Server::builder()), routes).await;
    Far {
        handler,
        server,
        probe,
    }
}

fn tenant(name: &str) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    metadata.insert("tenant", name.parse().expect("legal"));
    metadata
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_sees_the_address_of_its_tunnel_s_peer() {
    guarded(async {
        let calls = Calls::default();
        let far = far(&calls).await;
        let tunnel = far.tunnel().await;
        a_call(&client(&tunnel)).await;
        let call = calls.take();
        let [info] = &far.handler.tunnels()[..] else {
            panic!("one tunnel is open");
        };
        assert!(call.peer.is_some_and(|peer| peer.ip().is_loopback()));
        assert_eq!(call.peer, info.peer_addr());
        assert_eq!(call.tunnel, Some((info.id(), Direction::Forward)));
        assert_eq!(call.certificates, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_sees_the_metadata_its_tunnel_was_opened_with() {
    guarded(async {
        let calls = Calls::default();
        let far = far(&calls).await;
        let mut metadata = tenant("blue");
        metadata.append("tenant", "green".parse().expect("legal"));
        metadata.insert_bin("tenant-bin", MetadataValue::from_bytes(&every_byte()));
        let opening = far.opening().await.metadata(metadata.clone());
        let tunnel = opening.open().await.expect("the far end accepts");
        a_call(&client(&tunnel)).await;
        let call = calls.take();
        assert_eq!(call.tenant, ["blue", "green"]);
        assert_eq!(call.bytes, Some(every_byte()));
        // The opening end sees it too.
        assert_eq!(
            tunnel.info().metadata().get("tenant"),
            metadata.get("tenant")
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_of_one_tunnel_is_not_seen_on_another() {
    guarded(async {
        let calls = Calls::default();
        let far = far(&calls).await;
        // The first two tunnels share a connection.
        let channel = far.server.channel().await;
        let open = |metadata| {
            ForwardTunnel::new(channel.clone())
                .metadata(metadata)
                .open()
        };
        let blue = open(tenant("blue")).await.expect("the far end accepts");
        let plain = open(MetadataMap::new()).await.expect("the far end accepts");
        let green = open(tenant("green")).await.expect("the far end accepts");
        for (tunnel, tenant) in [
            (&blue, Some("blue")),
            (&plain, None),
            (&green, Some("green")),
            (&blue, Some("blue")),
        ] {
            a_call(&client(tunnel)).await;
            assert_eq!(calls.take().tenant, Vec::from_iter(tenant));
        }
        let ids: std::collections::HashSet<_> = far
            .handler
            .tunnels()
            .iter()
            .map(|tunnel| tunnel.id())
            .collect();
        assert_eq!(ids.len(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_sees_what_an_interceptor_of_the_outer_service_left() {
    guarded(async {
        let calls = Calls::default();
        let probe = Probe::default();
        let handler = calls.handler(&probe);
        let mark = |mut request: Request<()>| -> Result<Request<()>, Status> {
            let mark = match request.metadata().get("tenant") {
                Some(_) => Mark("has a tenant"),
                None => Mark("has none"),
            };
            request.extensions_mut().insert(mark);
            Ok(request)
        };
        let routes = Routes::new(InterceptedService::new(handler.service(), mark));
        let server = TcpServer::start(server_for_tunnels(Server::builder()), routes).await;
        for (metadata, mark) in [
            (tenant("blue"), "has a tenant"),
            (MetadataMap::new(), "has none"),
        ] {
            let opening = ForwardTunnel::new(server.channel().await).metadata(metadata);
            let tunnel = opening.open().await.expect("the far end accepts");
            for _ in 0..2 {
                a_call(&client(&tunnel)).await;
                assert_eq!(calls.take().mark, Some(Mark(mark)));
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_sees_what_a_layer_of_the_outer_service_left() {
    guarded(async {
        let calls = Calls::default();
        let handler = calls.handler(&Probe::default());
        let layer = InterceptorLayer::new(|mut request: Request<()>| {
            request.extensions_mut().insert(Mark("by a layer"));
            Ok(request)
        });
        let layered = ServiceBuilder::new()
            .layer(layer)
            .service(handler.service());
        let server =
            TcpServer::start(server_for_tunnels(Server::builder()), Routes::new(layered)).await;
        let opening = ForwardTunnel::new(server.channel().await);
        let tunnel = opening.open().await.expect("the far end accepts");
        a_call(&client(&tunnel)).await;
        let call = calls.take();
        assert_eq!(call.mark, Some(Mark("by a layer")));
        assert!(call.peer.is_some());
    })
    .await;
}

/// Each call gets its own copy of the extensions.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_call_does_to_its_extensions_is_not_seen_by_the_next() {
    guarded(async {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = seen.clone();
        let intercept = move |mut request: Request<()>| {
            let before = request.extensions_mut().insert(Mark("of a call"));
            note.lock().expect("not poisoned").push(before);
            request
                .extensions_mut()
                .remove::<TunnelInfo>()
                .expect("there");
            Ok(request)
        };
        let far = Far::start_with(|b| b.layer(InterceptorLayer::new(intercept)).build()).await;
        let tunnel = far.tunnel().await;
        for _ in 0..3 {
            a_call(&client(&tunnel)).await;
        }
        assert_eq!(*seen.lock().expect("not poisoned"), [None, None, None]);
    })
    .await;
}
