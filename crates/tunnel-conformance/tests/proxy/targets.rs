//! The targets of new connections.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tunnel_conformance::FaultProxy;

use crate::link::{
    Link, accept, assert_ended, assert_passes, assert_refused, assert_reset, connect, elsewhere,
    guarded, listener, receive,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_target_is_for_new_connections() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, mut server) = link.connect().await;
        let elsewhere = listener().await;
        link.proxy.set_target(Some(elsewhere.local_addr().unwrap()));
        let mut later_client = connect(link.proxy.address()).await;
        let mut later_server = accept(&elsewhere).await;
        assert_passes(&mut later_client, &mut later_server).await;
        assert_passes(&mut client, &mut server).await;
        link.proxy.wait_open(2).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_target_connections_are_refused_and_counted() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, mut server) = link.connect().await;
        link.proxy.wait_open(1).await;
        link.proxy.set_target(None);
        for refused in 1..=5 {
            assert_refused(link.proxy.address()).await;
            assert_eq!(link.proxy.accepted(), 1 + refused);
            assert_eq!(link.proxy.arrivals().len(), 1 + refused);
            assert_eq!(link.proxy.open(), 1);
        }
        assert_passes(&mut client, &mut server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_target_where_nobody_listens_connections_are_refused() {
    guarded(async {
        // The port is bound without a listener, so no other process can listen on it.
        let nobody = TcpSocket::new_v4().unwrap();
        nobody.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let proxy = FaultProxy::to(nobody.local_addr().unwrap()).await;
        assert_refused(proxy.address()).await;
        assert_eq!((proxy.accepted(), proxy.open()), (1, 0));

        let listener = nobody.listen(1).unwrap();
        let mut client = connect(proxy.address()).await;
        let mut server = accept(&listener).await;
        assert_passes(&mut client, &mut server).await;
        proxy.wait_open(1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_elsewhere_has_the_same_address_for_its_clients() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, _server) = link.connect().await;
        link.proxy.wait_open(1).await;
        link.proxy.set_target(None);
        link.proxy.reset();
        assert_reset(&mut client).await;
        assert_refused(link.proxy.address()).await;
        let back = listener().await;
        link.proxy.set_target(Some(back.local_addr().unwrap()));
        let mut client = connect(link.proxy.address()).await;
        let mut server = accept(&back).await;
        assert_passes(&mut client, &mut server).await;
        assert_eq!(link.proxy.accepted(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_have_not_reached_their_target_are_ended_too() {
    guarded(async {
        let busy = Busy::start().await;
        let proxy = FaultProxy::to(busy.address()).await;
        let mut client = connect(proxy.address()).await;
        proxy.wait_accepted(1).await;
        assert_eq!(proxy.open(), 0);
        proxy.cut();
        assert_ended(&mut client).await;

        let mut client = connect(proxy.address()).await;
        proxy.wait_accepted(2).await;
        assert_eq!(proxy.open(), 0);
        proxy.reset();
        assert_reset(&mut client).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_reaches_its_target_while_frozen_opens_after_the_thaw() {
    guarded(async {
        let busy = Busy::start().await;
        let proxy = FaultProxy::to(busy.address()).await;
        let mut client = connect(proxy.address()).await;
        proxy.wait_accepted(1).await;
        proxy.freeze();
        for _ in 0..Busy::QUEUE {
            busy.accept().await;
        }
        let mut server = busy.accept().await;
        elsewhere(100).await;
        assert_eq!(proxy.open(), 0);
        proxy.thaw();
        assert_passes(&mut client, &mut server).await;
        proxy.wait_open(1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_endpoint_connects_tonic_to_the_target() {
    guarded(async {
        let link = Link::start().await;
        let endpoint = link.proxy.endpoint();
        let (channel, mut server) = tokio::join!(endpoint.connect(), link.accept());
        channel.expect("it connects");
        assert_eq!(receive(&mut server, 14).await, b"PRI * HTTP/2.0");
    })
    .await;
}

/// A server whose accept queue is full, so that further connections do not open.
struct Busy {
    listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl Busy {
    /// How many connections the kernel queues for a listener that asks for one.
    const QUEUE: usize = 2;

    async fn start() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        let bound = socket.bind((Ipv4Addr::LOCALHOST, 0).into());
        bound.expect("a free port");
        let listener = socket.listen(1).expect("it listens");
        let address = listener.local_addr().expect("bound");
        let mut queue = Vec::new();
        for _ in 0..Self::QUEUE {
            queue.push(connect(address).await);
        }
        Self {
            listener,
            _queue: queue,
        }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("bound")
    }

    async fn accept(&self) -> TcpStream {
        accept(&self.listener).await
    }
}
