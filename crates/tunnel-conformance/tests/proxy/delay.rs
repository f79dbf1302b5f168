//! The delay: latency for bytes and ends, without a limit on throughput.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tunnel_conformance::FaultProxy;
use tunnel_conformance::proxy::Way;

use crate::link::{
    Link, abort, assert_ended, assert_passes, assert_reset, elsewhere, guarded, pattern, receive,
};

/// Long enough that nothing arrives by accident, short enough to wait for.
const DELAY: Duration = Duration::from_millis(50);
/// Longer than any test.
const FOREVER: Duration = Duration::from_secs(3600);
const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn bytes_arrive_no_sooner_than_the_delay_each_way() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, mut server) = link.connect().await;
        link.proxy.set_delay(DELAY);
        for _ in 0..3 {
            let sent = Instant::now();
            assert_passes(&mut client, &mut server).await;
            assert!(sent.elapsed() >= DELAY, "after {:?}", sent.elapsed());
            let sent = Instant::now();
            assert_passes(&mut server, &mut client).await;
            assert!(sent.elapsed() >= DELAY, "after {:?}", sent.elapsed());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_and_resets_take_as_long_as_bytes() {
    guarded(async {
        let link = Link::start().await;
        link.proxy.set_delay(DELAY);
        let (mut client, mut server) = link.connect().await;
        let sent = Instant::now();
        client.shutdown().await.unwrap();
        assert_ended(&mut server).await;
        assert!(sent.elapsed() >= DELAY, "after {:?}", sent.elapsed());
        let sent = Instant::now();
        abort(server);
        assert_reset(&mut client).await;
        assert!(sent.elapsed() >= DELAY, "after {:?}", sent.elapsed());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_and_a_reset_stay_behind_the_bytes_before_them() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, mut server) = link.connect().await;
        link.proxy.set_delay(DELAY);
        client.write_all(b"the last of it").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(receive(&mut server, 14).await, b"the last of it");
        assert_ended(&mut server).await;

        let (mut client, mut server) = link.connect().await;
        let before = link.proxy.traffic(Way::FromTarget).taken;
        server.write_all(b"and of this").await.unwrap();
        // A reset discards bytes in the kernel's buffer, so wait until the proxy has read them.
        link.proxy
            .wait_traffic(Way::FromTarget, |traffic| traffic.taken == before + 11)
            .await;
        abort(server);
        assert_eq!(receive(&mut client, 11).await, b"and of this");
        assert_reset(&mut client).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_delay_is_for_what_comes_after_it_and_overtakes_nothing() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, mut server) = link.connect().await;
        link.proxy.set_delay(DELAY);
        let sent = Instant::now();
        client.write_all(b"slow ").await.unwrap();
        link.proxy
            .wait_traffic(Way::ToTarget, |traffic| traffic.taken == 5)
            .await;
        link.proxy.set_delay(Duration::ZERO);
        client.write_all(b"fast").await.unwrap();
        assert_eq!(receive(&mut server, 9).await, b"slow fast");
        assert!(sent.elapsed() >= DELAY, "after {:?}", sent.elapsed());
    })
    .await;
}

/// A proxy with one buffer for each direction would take a few KiB and then wait for the delay.
#[tokio::test(flavor = "multi_thread")]
async fn many_megabytes_are_in_flight_at_once_in_each_direction() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, mut server) = link.connect().await;
        link.proxy.set_delay(FOREVER);
        let bytes = pattern(16 * MIB);
        for (sender, way) in [(&mut client, Way::ToTarget), (&mut server, Way::FromTarget)] {
            sender.write_all(&bytes).await.unwrap();
            let traffic = link
                .proxy
                .wait_traffic(way, |traffic| traffic.taken == 16 * MIB as u64)
                .await;
            assert_eq!(traffic.delivered, 0);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_megabytes_in_flight_arrive_unchanged_and_no_sooner_than_the_delay() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, mut server) = link.connect().await;
        link.proxy.set_delay(DELAY);
        let bytes = pattern(16 * MIB);
        let sent = Instant::now();
        let (written, received) =
            tokio::join!(client.write_all(&bytes), receive(&mut server, bytes.len()));
        written.unwrap();
        assert!(sent.elapsed() >= DELAY, "after {:?}", sent.elapsed());
        assert!(received == bytes, "it arrived changed");
    })
    .await;
}

/// A test cannot see that a sender waits, so it checks that the link has taken exactly its
/// capacity.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_link_takes_no_more() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, _server) = link.connect().await;
        link.proxy.set_delay(FOREVER);
        let sender = tokio::spawn(async move {
            let bytes = vec![0; MIB];
            while client.write_all(&bytes).await.is_ok() {}
        });
        let capacity = FaultProxy::CAPACITY as u64;
        link.proxy
            .wait_traffic(Way::ToTarget, |traffic| traffic.taken >= capacity)
            .await;
        // Round trips on another link give this link the time to take more.
        elsewhere(20).await;
        assert_eq!(link.proxy.traffic(Way::ToTarget).taken, capacity);
        link.proxy.reset();
        sender.await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_was_full_goes_on_when_its_receiver_reads() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, mut server) = link.connect().await;
        let bytes = pattern(FaultProxy::CAPACITY + 16 * MIB);
        let total = bytes.len();
        let (written, received) = tokio::join!(client.write_all(&bytes), async {
            let capacity = FaultProxy::CAPACITY as u64;
            link.proxy
                .wait_traffic(Way::ToTarget, |traffic| traffic.taken >= capacity)
                .await;
            receive(&mut server, total).await
        });
        written.unwrap();
        assert!(received == bytes, "it arrived changed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_delay_does_not_overflow() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, _server) = link.connect().await;
        link.proxy.set_delay(Duration::MAX);
        client.write_all(b"never").await.unwrap();
        let traffic = link
            .proxy
            .wait_traffic(Way::ToTarget, |traffic| traffic.taken == 5)
            .await;
        assert_eq!(traffic.delivered, 0);
        link.proxy.reset();
        link.proxy.wait_open(0).await;
    })
    .await;
}
