//! Errors name their cause once, in types and in text. Text from a peer is escaped.

use std::error::Error as _;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tunnel_client::{EndReason, ForwardTunnel, Report, TransportCause, TunnelChannel};
use tunnel_conformance::FaultProxy;
use tunnel_server::TunnelServiceHandler;

use crate::support::body::{Pieces, data, message};
use crate::support::peer::RawServer;
use crate::support::raw_service::{answers, raw_call};
use crate::support::{Far, eventually, guarded};

fn cause(reason: &EndReason) -> Option<TransportCause> {
    reason.transport_error().map(|error| error.cause())
}

/// An HTTP/2 server that accepts every tunnel and resets its stream after reading `limit` bytes.
async fn resets_after(limit: usize) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await;
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.expect("a connection comes");
        let mut connection = h2::server::handshake(socket).await.expect("HTTP/2");
        let (request, mut respond) = connection
            .accept()
            .await
            .expect("a request comes")
            .expect("HTTP/2");
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        let response = http::Response::builder().header("content-type", "application/grpc");
        let response = response.body(()).expect("legal");
        let mut respond = respond.send_response(response, false).expect("open");
        let mut body = request.into_body();
        let mut read = 0;
        while read < limit {
            let data = body.data().await.expect("more comes").expect("no fault");
            read += data.len();
            let _ = body.flow_control().release_capacity(data.len());
        }
        respond.send_reset(h2::Reason::PROTOCOL_ERROR);
    });
    address
}

async fn ended_by_reset(limit: usize, sent: usize) -> EndReason {
    let address = resets_after(limit).await;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("legal");
    let tunnel = ForwardTunnel::new(endpoint.connect_lazy()).open().await;
    let tunnel = tunnel.expect("it opens");
    let body = Pieces::then_pending(vec![data(message(&vec![0; sent]))]);
    let call = raw_call(&tunnel, body).await;
    assert_eq!(call.expect_err("lost").code(), Code::Unavailable);
    tunnel.ended().await
}

/// nginx does this. Its default `client_max_body_size` is 1 MiB.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_limits_request_bodies_is_named_as_the_likely_cause() {
    guarded(async {
        let reason = ended_by_reset(1 << 20, 3 << 20).await;
        assert_eq!(cause(&reason), Some(TransportCause::BodyLimit));
        let report = Report(&reason).to_string();
        assert!(report.contains("client_max_body_size"), "{report}");
        let reason = ended_by_reset(1, 1000).await;
        assert_eq!(cause(&reason), Some(TransportCause::Reset));
    })
    .await;
}

/// Nests `depth` tunnels inside one another.
async fn nested(far: &Far, outer: TunnelChannel, depth: usize) -> Vec<TunnelChannel> {
    let mut tunnels = vec![outer];
    for _ in 0..depth {
        let innermost = tunnels.last().expect("there is one").clone();
        let inner = ForwardTunnel::new(innermost).open().await;
        tunnels.push(inner.expect("the far end accepts a tunnel in a tunnel"));
    }
    assert_eq!(far.handler.tunnels().len(), 1);
    tunnels
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_reports_the_same_error_through_nested_tunnels() {
    guarded(async {
        // The service at each level runs inside the tunnel one level below.
        let silent = || answers(|_| std::future::pending());
        let builder = || TunnelServiceHandler::builder().add_service(silent());
        let middle = builder().add_service(builder().build().service()).build();
        let far = Far::start_with(|builder| {
            let builder = builder.add_service(silent());
            builder.add_service(middle.service()).build()
        });
        let far = far.await;
        let link = FaultProxy::to(far.server.address()).await;
        let outer = ForwardTunnel::new(link.endpoint().connect_lazy())
            .open()
            .await;
        let tunnels = nested(&far, outer.expect("it opens"), 2).await;
        let calls = tunnels.iter().map(|tunnel| {
            let tunnel = tunnel.clone();
            tokio::spawn(async move { raw_call(&tunnel, Pieces::then_pending(vec![])).await })
        });
        let calls: Vec<_> = calls.collect();
        // Each tunnel is a call of the tunnel that carries it.
        eventually(|| {
            let calls = tunnels.iter().map(|tunnel| tunnel.stats().streams);
            calls.eq([2, 2, 1])
        })
        .await;
        link.reset();
        let mut texts = Vec::new();
        for call in calls {
            let status = call.await.expect("no panic").expect_err("lost");
            assert_eq!(status.code(), Code::Unavailable);
            assert!(!status.message().contains("Error("), "{status:?}");
            assert!(status.source().is_some());
            texts.push(status.message().to_owned());
        }
        assert!(texts.iter().all(|text| *text == texts[0]), "{texts:#?}");
        for tunnel in tunnels {
            let reason = tunnel.ended().await;
            assert_eq!(cause(&reason), Some(TransportCause::Io), "{reason:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn control_characters_in_a_peers_status_are_escaped() {
    guarded(async {
        let mut server = RawServer::start().await;
        let opening = ForwardTunnel::new(server.server.channel().await);
        let opening = tokio::spawn(opening.open());
        let mut handler = server.opening().await.accept(true);
        handler.settings(&[0, 1]);
        let tunnel = opening.await.expect("no panic").expect("it opens");
        handler.end(&Status::permission_denied("no\n\x1b[2Jmore"));
        let reason = tunnel.ended().await;
        for text in [reason.to_string(), Report(&reason).to_string()] {
            assert!(!text.chars().any(char::is_control), "{text:?}");
            assert!(text.contains(r"no\n\u{1b}[2Jmore"), "{text}");
        }
        let refused = raw_call(&tunnel, Body::empty()).await.expect_err("over");
        assert!(!refused.message().chars().any(char::is_control));
    })
    .await;
}
