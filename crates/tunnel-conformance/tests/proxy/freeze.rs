//! The freeze: nothing moves, closes or is lost.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tunnel_conformance::proxy::Way;

use crate::link::{
    Link, abort, assert_ended, assert_passes, assert_reset, connect, elsewhere, guarded, pattern,
    receive,
};

/// Round trips on another link. They take far longer than one message on this link.
const ROUNDS: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn frozen_nothing_moves_and_after_the_thaw_nothing_is_lost() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, mut server) = link.connect().await;
        assert_passes(&mut client, &mut server).await;
        assert_passes(&mut server, &mut client).await;
        link.proxy.freeze();
        // The kernel buffers these bytes.
        let bytes = pattern(10_000);
        client.write_all(&bytes).await.unwrap();
        server.write_all(&bytes).await.unwrap();
        elsewhere(ROUNDS).await;
        for way in [Way::ToTarget, Way::FromTarget] {
            let traffic = link.proxy.traffic(way);
            assert_eq!((traffic.taken, traffic.delivered), (12, 12), "{way:?}");
        }
        link.proxy.thaw();
        assert_eq!(receive(&mut server, 10_000).await, bytes);
        assert_eq!(receive(&mut client, 10_000).await, bytes);
        assert_passes(&mut client, &mut server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_in_one_direction_the_other_goes_on_and_nothing_is_lost() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, mut server) = link.connect().await;
        assert_passes(&mut client, &mut server).await;
        link.proxy.freeze_way(Way::FromTarget);
        let bytes = pattern(10_000);
        server.write_all(&bytes).await.unwrap();
        for _ in 0..ROUNDS {
            assert_passes(&mut client, &mut server).await;
        }
        assert_eq!(link.proxy.traffic(Way::FromTarget).taken, 0);
        link.proxy.thaw();
        assert_eq!(receive(&mut client, 10_000).await, bytes);
    })
    .await;
}

/// No byte moves after `freeze` has returned.
#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_in_full_flow_is_exact_and_loses_nothing() {
    guarded(async {
        const TOTAL: usize = 32 << 20;
        let link = Link::start().await;
        let (mut client, mut server) = link.connect().await;
        let bytes = pattern(TOTAL);
        let sent = bytes.clone();
        let sender = tokio::spawn(async move { client.write_all(&sent).await });
        let receiver = tokio::spawn(async move { receive(&mut server, TOTAL).await });
        for part in 1..8 {
            let enough = (part * TOTAL / 8) as u64;
            link.proxy
                .wait_traffic(Way::ToTarget, |traffic| traffic.delivered >= enough)
                .await;
            link.proxy.freeze();
            let frozen = link.proxy.traffic(Way::ToTarget);
            elsewhere(5).await;
            assert_eq!(link.proxy.traffic(Way::ToTarget), frozen);
            link.proxy.thaw();
        }
        sender.await.unwrap().unwrap();
        assert!(receiver.await.unwrap() == bytes, "it arrived changed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_in_flight_when_it_freezes_arrive_after_the_thaw() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, mut server) = link.connect().await;
        link.proxy.set_delay(Duration::from_millis(20));
        client.write_all(b"under way").await.unwrap();
        link.proxy
            .wait_traffic(Way::ToTarget, |traffic| traffic.taken == 9)
            .await;
        link.proxy.freeze();
        let frozen = link.proxy.traffic(Way::ToTarget);
        // Round trips on another link with the same delay take longer than the delay.
        let other = Link::start().await;
        other.proxy.set_delay(Duration::from_millis(20));
        let (mut one, mut another) = other.connect().await;
        assert_passes(&mut one, &mut another).await;
        assert_passes(&mut another, &mut one).await;
        assert_eq!(link.proxy.traffic(Way::ToTarget), frozen);
        link.proxy.thaw();
        assert_eq!(receive(&mut server, 9).await, b"under way");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_and_resets_pass_on_only_after_the_thaw() {
    guarded(async {
        let link = Link::start().await;
        let (client, mut server) = link.connect().await;
        let (mut other_client, other_server) = link.connect().await;
        link.proxy.wait_open(2).await;
        link.proxy.freeze();
        drop(client);
        abort(other_server);
        elsewhere(ROUNDS).await;
        assert_eq!(link.proxy.open(), 2);
        let mut byte = [0];
        for socket in [&server, &other_client] {
            let told = socket.try_read(&mut byte);
            assert_eq!(told.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        }
        link.proxy.thaw();
        assert_ended(&mut server).await;
        assert_reset(&mut other_client).await;
        link.proxy.wait_open(1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_it_serves_no_connection_until_the_thaw() {
    guarded(async {
        let link = Link::start().await;
        link.proxy.freeze();
        let mut client = connect(link.proxy.address()).await;
        client.write_all(b"anyone?").await.unwrap();
        elsewhere(ROUNDS).await;
        assert_eq!((link.proxy.accepted(), link.proxy.open()), (0, 0));
        assert!(link.proxy.arrivals().is_empty());
        link.proxy.thaw();
        let mut server = link.accept().await;
        assert_eq!(receive(&mut server, 7).await, b"anyone?");
        link.proxy.wait_open(1).await;
        assert_eq!(link.proxy.accepted(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn freezing_and_thawing_are_idempotent() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, mut server) = link.connect().await;
        link.proxy.thaw();
        link.proxy.freeze();
        link.proxy.freeze();
        client.write_all(b"well?").await.unwrap();
        link.proxy.thaw();
        assert_eq!(receive(&mut server, 5).await, b"well?");
    })
    .await;
}
