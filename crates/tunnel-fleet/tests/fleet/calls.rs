//! Calls to devices, wherever they are.

use http_body_util::{BodyExt as _, Full};
use tonic::body::Body;
use tonic::{Code, Status};
use tower_service::Service as _;
use tunnel_fleet::FleetChannel;
use tunnel_fleet::directory::MemoryDirectory;
use tunnel_server::WhenNoTunnel;

use crate::support::{TestDevice, TestGateway, check, check_and_wait, until};

async fn two() -> (MemoryDirectory, TestGateway, TestGateway) {
    let directory = MemoryDirectory::new();
    let a = TestGateway::start("a", &directory).await;
    let b = TestGateway::start("b", &directory).await;
    (directory, a, b)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_at_any_gateway_is_reached_from_every_gateway() {
    let (_directory, a, b) = two().await;
    let device = TestDevice::connect("17", &[&b]).await;
    check(b.channel("17")).await.expect("own tunnel");
    assert_eq!(b.fleet.stats().hops, 0, "no hop to a device that is here");
    until("a knows the route", || a.channel("17").is_ready()).await;
    check(a.channel("17")).await.expect("by hop");
    assert_eq!(device.calls.count(), 2);
    assert_eq!((a.fleet.stats().hops, b.fleet.stats().hops_served), (1, 1));
    let seen = device.calls.last_metadata();
    let of_hop = |name: &&http::HeaderName| name.as_str().starts_with("tunnel-hop");
    assert_eq!(seen.keys().find(of_hop), None, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_nowhere_is_unavailable_by_name_at_once() {
    let (_directory, a, _b) = two().await;
    let status = check(a.channel("nowhere")).await.expect_err("not there");
    let oracle = check_oracle(&a).await;
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), oracle.message());
}

/// The status of a call without a message, from the head or the trailers of its response.
async fn status_of(mut channel: FleetChannel, path: &'static str) -> Code {
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Full::from(&[0; 5][..])))
        .expect("legal");
    let response = channel.call(request).await.expect("it is answered");
    let mut trailers = response.headers().clone();
    let collected = response.into_body().collect().await.expect("a body");
    trailers.extend(collected.trailers().cloned().unwrap_or_default());
    Status::from_header_map(&trailers).expect("a status").code()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_for_a_device_never_reaches_a_service_of_the_gateway() {
    let (_directory, a, b) = two().await;
    let _device = TestDevice::connect("17", &[&b]).await;
    until("a knows the route", || a.channel("17").is_ready()).await;
    let peer = "/tunnel.fleet.v1.Peer/Look";
    assert_eq!(status_of(a.channel("17"), peer).await, Code::Unimplemented);
    assert_eq!(a.fleet.stats().hops, 1);
}

async fn check_oracle(gateway: &TestGateway) -> tonic::Status {
    let channel = gateway.handler.key_as_channel("nowhere");
    let request = tonic_health::pb::HealthCheckRequest::default();
    let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
    client.check(request).await.expect_err("not there")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_can_wait_until_its_device_comes_to_any_gateway() {
    let (_directory, a, b) = two().await;
    let channel = a.channel("17").when_no_tunnel(WhenNoTunnel::Wait);
    let waiting = tokio::spawn(check(channel));
    let device = TestDevice::connect("17", &[&b]).await;
    waiting.await.expect("no panic").expect("by hop");
    assert_eq!(device.calls.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_route_costs_a_hop_and_no_call_and_no_second_hop() {
    let directory = MemoryDirectory::new();
    let a = TestGateway::start("a", &directory).await;
    let b = TestGateway::start("b", &directory).await;
    let c = TestGateway::start("c", &directory).await;
    let gone = TestDevice::connect("17", &[&b]).await;
    let stays = TestDevice::connect("17", &[&c]).await;
    until("a knows both", || a.fleet.routes("17").len() == 2).await;
    // Now the route to b is the newer one.
    let again = TestDevice::connect("17", &[&b]).await;
    until("a knows that too", || {
        let tunnels = a.fleet.routes("17").into_iter().map(|r| r.record.tunnels);
        tunnels.sum::<usize>() == 3
    })
    .await;
    check(a.channel("17")).await.expect("by b");
    // The directory does not hear that the device has left b.
    directory.set_reachable(false);
    gone.handle.close().await;
    again.handle.close().await;
    until("b has no tunnel", || {
        !b.handler.key_as_channel("17").is_ready()
    })
    .await;
    let served = stays.calls.count();
    check(a.channel("17")).await.expect("by c");
    assert_eq!(stays.calls.count(), served + 1);
    assert_eq!(a.fleet.stats().absent, 1);
    check(a.channel("17")).await.expect("by c at once");
    assert_eq!(a.fleet.stats().absent, 1, "b is not asked again");
    assert_eq!(b.fleet.stats().hops, 0, "b passes nothing on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_costs_the_calls_in_flight_and_the_next_call_goes_around_it() {
    let directory = MemoryDirectory::new();
    let a = TestGateway::start("a", &directory).await;
    let mut b = TestGateway::start("b", &directory).await;
    let mut c = TestGateway::start("c", &directory).await;
    let device = TestDevice::connect("17", &[&b, &c]).await;
    until("a knows both", || a.fleet.routes("17").len() == 2).await;
    let in_flight = tokio::spawn(check_and_wait(a.channel("17")));
    until("the call is at the device", || device.calls.count() == 1).await;
    let by_b = b.fleet.stats().hops_served == 1;
    match by_b {
        true => b.kill(),
        false => c.kill(),
    }
    let status = in_flight.await.expect("no panic").expect_err("lost");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status.message().contains("may have been processed"),
        "{status}"
    );
    check(a.channel("17")).await.expect("by the other gateway");
    assert_eq!(device.calls.count(), 2, "no call was made twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_gateway_is_tried_last_and_knows_who_would_be_lost_with_it() {
    let directory = MemoryDirectory::new();
    let a = TestGateway::start("a", &directory).await;
    let b = TestGateway::start("b", &directory).await;
    let c = TestGateway::start("c", &directory).await;
    let _both = TestDevice::connect("both", &[&b, &c]).await;
    let _alone = TestDevice::connect("alone", &[&b]).await;
    until("everything is known", || {
        let known = |g: &TestGateway| {
            g.fleet.routes("both").len() == 2 && g.fleet.routes("alone").len() == 1
        };
        known(&a) && known(&b) && a.fleet.peers().len() == 2
    })
    .await;
    assert_eq!(b.fleet.only_here(), ["alone"]);
    b.fleet.begin_drain();
    until("the others know", || {
        let mut gateways = a.fleet.gateways().into_iter();
        gateways.any(|gateway| gateway.record.draining)
    })
    .await;
    for _ in 0..3 {
        check(a.channel("both")).await.expect("by c");
    }
    assert_eq!(
        (b.fleet.stats().hops_served, c.fleet.stats().hops_served),
        (0, 3)
    );
    check(a.channel("alone"))
        .await
        .expect("by b, which goes on serving");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_does_not_wait_for_a_gateway_that_cannot_be_reached() {
    let directory = MemoryDirectory::new();
    let a = TestGateway::start("a", &directory).await;
    let b = TestGateway::start_with("b", &directory, |builder| {
        // Nobody listens there.
        builder.advertise("http://127.0.0.1:1")
    })
    .await;
    let device = TestDevice::connect("17", &[&b]).await;
    until("a knows the route", || !a.fleet.routes("17").is_empty()).await;
    let status = check(a.channel("17")).await.expect_err("no way");
    assert_eq!(status.code(), Code::Unavailable);
    check(b.channel("17")).await.expect("own tunnel");
    assert_eq!(device.calls.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_a_moment_for_a_device_that_moves_and_not_for_one_that_is_gone() {
    let directory = MemoryDirectory::new();
    let a = TestGateway::start("a", &directory).await;
    let b = TestGateway::start("b", &directory).await;
    let device = TestDevice::connect("17", &[&a]).await;
    until("b knows the route", || b.channel("17").is_ready()).await;
    drop(device);
    until("the device has left", || {
        a.handler.tunnels_of_key("17").is_empty()
    })
    .await;
    let calls = [&a, &b].map(|gateway| tokio::spawn(check(gateway.channel("17"))));
    let device = TestDevice::connect("17", &[&b]).await;
    for call in calls {
        call.await.expect("no panic").expect("reached at b");
    }
    assert_eq!(device.calls.count(), 2);
    drop(device);
    until("the device has left", || {
        b.handler.tunnels_of_key("17").is_empty()
    })
    .await;
    let begun = std::time::Instant::now();
    let status = check(a.channel("17")).await.expect_err("nobody has it");
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert!(begun.elapsed() < std::time::Duration::from_secs(3));
}
