//! Connections that the test ends, and the end of the proxy.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;
use tunnel_conformance::proxy::Way;

use crate::link::{
    Link, assert_ended, assert_passes, assert_reset, connect, eventually, guarded, pattern,
};

/// Longer than any test.
const FOREVER: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_tells_both_sides_that_the_stream_is_over() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, mut server) = link.connect().await;
        let (mut other_client, mut other_server) = link.connect().await;
        link.proxy.wait_open(2).await;
        link.proxy.cut();
        link.proxy.wait_open(0).await;
        for socket in [
            &mut client,
            &mut server,
            &mut other_client,
            &mut other_server,
        ] {
            assert_ended(socket).await;
        }
    })
    .await;
}

/// A socket that is closed with unread bytes, or receives bytes afterwards, sends a reset. The
/// proxy must avoid that.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_ends_cleanly_even_with_unread_bytes() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, mut server) = link.connect().await;
        link.proxy.wait_open(1).await;
        link.proxy.freeze();
        client.write_all(&pattern(10_000)).await.unwrap();
        server.write_all(&pattern(10_000)).await.unwrap();
        link.proxy.cut();
        link.proxy.wait_open(0).await;
        for socket in [&mut client, &mut server] {
            // The kernel does not buffer this much, so the proxy reads and discards it.
            socket.write_all(&vec![0; 16 << 20]).await.unwrap();
            assert_ended(socket).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_tells_both_sides_that_the_connection_was_reset() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, mut server) = link.connect().await;
        let (mut other_client, mut other_server) = link.connect().await;
        link.proxy.wait_open(2).await;
        link.proxy.reset();
        link.proxy.wait_open(0).await;
        for socket in [
            &mut client,
            &mut server,
            &mut other_client,
            &mut other_server,
        ] {
            assert_reset(socket).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_and_a_reset_need_no_thaw() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, mut server) = link.connect().await;
        link.proxy.wait_open(1).await;
        link.proxy.freeze();
        link.proxy.cut();
        link.proxy.wait_open(0).await;
        assert_ended(&mut client).await;
        assert_ended(&mut server).await;
        link.proxy.thaw();

        let (mut client, mut server) = link.connect().await;
        link.proxy.wait_open(1).await;
        link.proxy.freeze();
        link.proxy.reset();
        link.proxy.wait_open(0).await;
        assert_reset(&mut client).await;
        assert_reset(&mut server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_and_a_reset_lose_bytes_in_flight() {
    guarded(async {
        let link = Link::start().await;
        link.proxy.set_delay(FOREVER);
        let (mut client, mut server) = link.connect().await;
        client.write_all(b"lost").await.unwrap();
        let taken =
            |count| move |traffic: &tunnel_conformance::proxy::Traffic| traffic.taken == count;
        link.proxy.wait_traffic(Way::ToTarget, taken(4)).await;
        link.proxy.cut();
        assert_ended(&mut server).await;

        let (mut client, mut server) = link.connect().await;
        client.write_all(b"lost").await.unwrap();
        link.proxy.wait_traffic(Way::ToTarget, taken(8)).await;
        link.proxy.reset();
        assert_reset(&mut server).await;
        assert_eq!(link.proxy.traffic(Way::ToTarget).delivered, 0);
    })
    .await;
}

/// The ends of a cut connection are still open, so a reset reaches them.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_ends_what_was_cut_before() {
    guarded(async {
        let link = Link::start().await;
        let (mut client, mut server) = link.connect().await;
        link.proxy.wait_open(1).await;
        link.proxy.cut();
        assert_ended(&mut client).await;
        assert_ended(&mut server).await;
        link.proxy.reset();
        for socket in [&mut client, &mut server] {
            while socket.write_all(&[0; 1000]).await.is_ok() {}
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_come_after_a_cut_or_a_reset_stay() {
    guarded(async {
        let link = Link::start().await;
        link.proxy.reset();
        link.proxy.cut();
        let (mut client, mut server) = link.connect().await;
        assert_passes(&mut client, &mut server).await;
        link.proxy.wait_open(1).await;
        link.proxy.reset();
        link.proxy.wait_open(0).await;
        let (mut client, mut server) = link.connect().await;
        assert_passes(&mut client, &mut server).await;
        link.proxy.wait_open(1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_both_ends_have_closed_no_task_is_left_of_a_connection() {
    guarded(async {
        let link = Link::start().await;
        let before = tasks();
        let ends = link.connect().await;
        link.proxy.wait_open(1).await;
        assert_eq!(tasks(), before + 1);
        drop(ends);
        eventually(|| tasks() == before).await;

        let ends = link.connect().await;
        link.proxy.wait_open(1).await;
        link.proxy.cut();
        drop(ends);
        eventually(|| tasks() == before).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_it_leaves_no_task_and_no_socket() {
    guarded(async {
        let before = tasks();
        let link = Link::start().await;
        let (mut idle_client, mut idle_server) = link.connect().await;
        let (mut cut_client, mut cut_server) = link.connect().await;
        link.proxy.wait_open(2).await;
        link.proxy.cut();
        link.proxy.wait_open(0).await;
        for socket in [
            &mut idle_client,
            &mut idle_server,
            &mut cut_client,
            &mut cut_server,
        ] {
            assert_ended(socket).await;
        }
        // One connection is open, and one is still in the kernel's accept queue.
        let (mut client, mut server) = link.connect().await;
        link.proxy.wait_open(1).await;
        link.proxy.freeze();
        let mut waiting = connect(link.proxy.address()).await;
        assert!(tasks() > before);
        drop(link.proxy);
        eventually(|| tasks() == before).await;
        assert_ended(&mut client).await;
        assert_ended(&mut server).await;
        assert_reset(&mut waiting).await;
        for socket in [&mut cut_client, &mut cut_server] {
            while socket.write_all(&[0; 1000]).await.is_ok() {}
        }
    })
    .await;
}

/// The tasks of this test's runtime.
fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}
