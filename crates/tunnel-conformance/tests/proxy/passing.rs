//! The data that passes the proxy, and its counters.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tunnel_conformance::proxy::Way;

use crate::link::{
    Link, abort, assert_ended, assert_passes, assert_reset, connect, guarded, pattern, receive,
};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn bytes_pass_unchanged_both_ways_at_once() {
    guarded(async {
        let link = Link::start().await;
        let (client, server) = link.connect().await;
        let (mut from_server, mut to_server) = client.into_split();
        let (mut from_client, mut to_client) = server.into_split();
        let (there, back) = (pattern(5 * MIB + 1), pattern(3 * MIB + 2));
        let (mut at_server, mut at_client) = (vec![0; there.len()], vec![0; back.len()]);
        tokio::try_join!(
            to_server.write_all(&there),
            to_client.write_all(&back),
            from_client.read_exact(&mut at_server),
            from_server.read_exact(&mut at_client),
        )
        .unwrap();
        assert!(at_server == there, "what the client sent arrived changed");
        assert!(at_client == back, "what the server sent arrived changed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_that_an_end_has_seen_is_counted() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, mut server) = link.connect().await;
        let (mut there, mut back) = (0, 0);
        for count in 1..100 {
            client.write_all(&pattern(count)).await.unwrap();
            receive(&mut server, count).await;
            there += count as u64;
            let traffic = link.proxy.traffic(Way::ToTarget);
            assert_eq!((traffic.taken, traffic.delivered), (there, there));
            server.write_all(&pattern(2 * count)).await.unwrap();
            receive(&mut client, 2 * count).await;
            back += 2 * count as u64;
            let traffic = link.proxy.traffic(Way::FromTarget);
            assert_eq!((traffic.taken, traffic.delivered), (back, back));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_counts_outlive_their_connections() {
    guarded(async {
        let link = Link::start().await;
        for _ in 0..2 {
            let (mut client, mut server) = link.connect().await;
            assert_passes(&mut client, &mut server).await;
            link.proxy.reset();
            link.proxy.wait_open(0).await;
        }
        assert_eq!(link.proxy.traffic(Way::ToTarget).delivered, 24);
        assert_eq!(link.proxy.accepted(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_traffic_ends_when_it_comes() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, mut server) = link.connect().await;
        let wait = link
            .proxy
            .wait_traffic(Way::FromTarget, |traffic| traffic.taken >= 5);
        let (traffic, ()) = tokio::join!(wait, async {
            for byte in b"hello" {
                server.write_all(&[*byte]).await.unwrap();
            }
        });
        assert_eq!(traffic.taken, 5);
        assert_eq!(receive(&mut client, 5).await, b"hello");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_close_passes_on_and_the_other_half_goes_on() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, mut server) = link.connect().await;
        client.write_all(b"last words").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(receive(&mut server, 10).await, b"last words");
        assert_ended(&mut server).await;
        assert_passes(&mut server, &mut client).await;
        assert_eq!(link.proxy.open(), 1);
        server.shutdown().await.unwrap();
        assert_ended(&mut client).await;
        link.proxy.wait_open(0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_by_one_end_passes_on_to_the_other() {
    guarded(async {
        let link = Link::start().await;
        let (client, mut server) = link.connect().await;
        abort(client);
        assert_reset(&mut server).await;
        let (mut client, server) = link.connect().await;
        abort(server);
        assert_reset(&mut client).await;
        link.proxy.wait_open(0).await;
    })
    .await;
}

/// The proxy does not read from an end that has half-closed. It notices the reset when it writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_after_a_half_close_passes_on_to_an_end_that_writes() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, mut server) = link.connect().await;
        server.shutdown().await.unwrap();
        assert_ended(&mut client).await;
        abort(server);
        while client.write_all(&[0; 1000]).await.is_ok() {}
        link.proxy.wait_open(0).await;
    })
    .await;
}

/// The kernel reports a reset once. If a write gets the error, a later read sees a clean end.
/// Whether the proxy reads or writes first after a thaw is chance, so the test repeats it.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_that_a_write_reports_first_is_still_a_reset() {
    guarded(async {
        let link = Link::start().await;
        let other = Link::start().await;
        let (mut one, mut another) = other.connect().await;
        for proxy in [&link.proxy, &other.proxy] {
            proxy.set_delay(Duration::from_millis(5));
        }
        for round in 1..=20 {
            let (mut client, server) = link.connect().await;
            client.write_all(b"!").await.unwrap();
            link.proxy
                .wait_traffic(Way::ToTarget, |traffic| traffic.taken == round)
                .await;
            link.proxy.freeze();
            abort(server);
            // A round trip on the other link takes longer than the delay. Afterwards the proxy has
            // bytes to write at once.
            assert_passes(&mut one, &mut another).await;
            link.proxy.thaw();
            assert_reset(&mut client).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_connections_at_once_are_carried_counted_and_timed() {
    guarded(async {
        let link = Link::start().await;
        let begin = std::time::Instant::now();
        let address = link.proxy.address();
        let clients: Vec<_> = (0..100).map(|_| tokio::spawn(connect(address))).collect();
        link.proxy.wait_accepted(100).await;
        link.proxy.wait_open(100).await;
        let arrivals = link.proxy.arrivals();
        assert_eq!((arrivals.len(), link.proxy.accepted()), (100, 100));
        assert!(arrivals.is_sorted());
        assert!(begin <= arrivals[0] && arrivals[99] <= std::time::Instant::now());
        for client in clients {
            let mut client = client.await.unwrap();
            client.write_all(b"here").await.unwrap();
        }
        for _ in 0..100 {
            let mut server = link.accept().await;
            assert_eq!(receive(&mut server, 4).await, b"here");
        }
        link.proxy.wait_open(0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_debug_output_shows_its_state() {
    guarded(async {
        let link = Link::start().await;
        link.proxy.freeze();
        let debug = format!("{:?}", link.proxy);
        let address = format!("address: {}", link.proxy.address());
        for part in [
            address.as_str(),
            "frozen: Everything",
            "accepted: 0",
            "open: 0",
        ] {
            assert!(debug.contains(part), "{part} is not in {debug}");
        }
    })
    .await;
}
