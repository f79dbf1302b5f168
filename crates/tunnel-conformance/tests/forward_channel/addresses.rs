//! Addresses that do not work.

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tonic::transport::Endpoint;
use tunnel_client::{Gateway, endpoint_for_tunnels};
use tunnel_conformance::Probe;

use crate::support::{Backend, NEVER, assert_usable, channel, client, guarded};

/// An address that accepts no more connections because its queue is full.
async fn swallows(address: SocketAddr) -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(address).expect("the port is free there");
    let listener = socket.listen(1).expect("it listens");
    let mut connecting: FuturesUnordered<_> = (0..8).map(|_| TcpStream::connect(address)).collect();
    let mut waiting = Vec::new();
    while waiting.len() < 2 {
        let connected = connecting.next().await.expect("some are left");
        waiting.push(connected.expect("there is room"));
    }
    (listener, waiting)
}

/// The name resolves to two addresses. tonic's own connector tries both too.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_address_of_a_name_is_tried_in_the_same_attempt_where_the_first_is_silent() {
    guarded(async {
        let backend = Backend::start(&Probe::default()).await;
        let answers = backend.server.address();
        let silent = SocketAddr::from(([127, 0, 0, 2], answers.port()));
        let _full = swallows(silent).await;

        let name = format!("http://gateway.example:{}", answers.port());
        let endpoint = Endpoint::from_shared(name).expect("legal");
        let endpoint = endpoint_for_tunnels(endpoint.connect_timeout(Duration::from_secs(4)));
        let gateway = Gateway::connect_with("two addresses", move || {
            let resolver = tower::service_fn(move |_: Name| async move {
                Ok::<_, std::io::Error>([silent, answers].into_iter())
            });
            let mut connector = HttpConnector::new_with_resolver(resolver);
            connector.set_connect_timeout(endpoint.get_connect_timeout());
            let endpoint = endpoint.clone();
            async move { endpoint.connect_with_connector(connector).await }
        });
        let kept = channel(gateway).open_timeout(NEVER).connect().await;
        let kept = kept.expect("the first attempt finds the address that answers");
        assert_usable(&client(&kept)).await;
    })
    .await;
}
