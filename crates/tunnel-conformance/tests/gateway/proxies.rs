//! Calls of plain clients that a gateway passes on to devices by key.

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Status};
use tower::ServiceExt as _;
use tunnel_client::ReverseTunnelServer;
use tunnel_conformance::Probe;
use tunnel_server::{KeyFrom, TunnelServiceHandler, WhenNoTunnel};

use crate::support::{DEVICE, Gateway, by_name, guarded, handler, local_device};

/// A call by metadata to the device with this name, or to none. Returns its status.
async fn status_of(routes: &Routes, device: Option<&str>) -> Status {
    let mut request = http::Request::post("/nobody.Service/Any");
    request = request.header("content-type", "application/grpc");
    if let Some(device) = device {
        request = request.header(DEVICE, device);
    }
    let request = request.body(Body::empty()).expect("legal");
    let response = routes.clone().prepare().oneshot(request).await;
    let (head, body) = response.expect("infallible").into_parts();
    if let Some(status) = Status::from_header_map(&head.headers) {
        return status;
    }
    let body = http_body_util::BodyExt::collect(body).await;
    let collected = body.expect("no error but a status");
    Status::from_header_map(collected.trailers().expect("trailers")).expect("a status")
}

fn proxied(handler: &TunnelServiceHandler) -> Routes {
    let routes = Routes::new(handler.service()).into_axum_router();
    let proxy = handler.proxy(KeyFrom::metadata(DEVICE));
    routes.fallback_service(proxy).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_key_says_how_to_give_one_and_one_of_an_unknown_key_names_it() {
    guarded(async {
        let handler = handler(|builder| builder);
        let routes = proxied(&handler);
        let status = status_of(&routes, None).await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(
            status.message().contains(r#"metadata "device""#),
            "{status:?}"
        );
        let status = status_of(&routes, Some("17")).await;
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains(r#"key "17""#), "{status:?}");
        assert_eq!(handler.kept_keys(), 0);
    })
    .await;
}

/// The device is the one that was named: it knows no such service.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_for_its_device_if_the_proxy_is_told_so() {
    guarded(async {
        let handler = handler(|builder| builder);
        let proxy = handler.proxy(KeyFrom::metadata(DEVICE));
        let waiting = proxy.configure(|channel| channel.when_no_tunnel(WhenNoTunnel::Wait));
        let routes = Routes::default()
            .into_axum_router()
            .fallback_service(waiting);
        let routes = routes.into();
        let calling = tokio::spawn(async move { status_of(&routes, Some("17")).await });
        let _other = local_device(&handler, "16").await;
        assert!(!calling.is_finished());
        let _device = local_device(&handler, "17").await;
        let status = calling.await.expect("no panic");
        assert_eq!(status.code(), Code::Unimplemented);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_own_server_is_down_says_so_and_serves_what_it_has_itself() {
    guarded(async {
        let gateway = Gateway::serve(
            TunnelServiceHandler::builder()
                .affinity_key(by_name)
                .build(),
        );
        let gateway = gateway.await;
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("local");
        let local = Endpoint::from_shared(format!("unix:{}", path.display())).expect("legal");
        let mut metadata = tonic::metadata::MetadataMap::new();
        metadata.insert(DEVICE, "17".parse().expect("legal"));
        let device = ReverseTunnelServer::builder(gateway.server.endpoint())
            .add_service(tunnel_conformance::service::scripted(&Probe::default()))
            .forward_to(local.connect_lazy())
            .metadata(metadata)
            .build();
        let handle = device.handle();
        tokio::spawn(device.run());
        assert_eq!(handle.connected().await, Ok(()));
        let status = status_of(&proxied(&gateway.handler), Some("17")).await;
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        let said = "the server that calls are forwarded to cannot be reached: ";
        assert!(status.message().starts_with(said), "{status:?}");
        crate::support::assert_usable(&gateway.handler.key_as_channel("17")).await;
        // It comes back.
        let incoming = UnixListenerStream::new(UnixListener::bind(&path).expect("a free path"));
        tokio::spawn(
            Server::builder()
                .add_routes(Routes::default())
                .serve_with_incoming(incoming),
        );
        let status = status_of(&proxied(&gateway.handler), Some("17")).await;
        assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
        handle.close().await;
    })
    .await;
}

/// The device could not tell: the tunnel carries only gRPC.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_post_of_grpc_does_not_reach_a_device() {
    guarded(async {
        let routes = proxied(&handler(|builder| builder));
        for (method, kind) in [
            ("PUT", "application/grpc"),
            ("POST", "text/plain"),
            ("POST", "application/grpc-web"),
        ] {
            let request = http::Request::builder().method(method).uri("/a.B/C");
            let request = request
                .header("content-type", kind)
                .header(DEVICE, "device-7");
            let request = request.body(Body::empty()).expect("legal");
            let response = routes.clone().prepare().oneshot(request).await;
            let status = response.expect("infallible").status();
            assert_eq!(
                status,
                http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "{method} {kind}"
            );
        }
    })
    .await;
}
