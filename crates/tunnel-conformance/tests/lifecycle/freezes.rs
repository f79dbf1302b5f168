//! Peers that freeze: they close nothing and send nothing.

use std::time::{Duration, Instant};

use tonic::Code;
use tunnel_client::{Gateway as Dialled, Keepalive};
use tunnel_conformance::client::run;
use tunnel_conformance::payload::request;
use tunnel_conformance::proto::Script;
use tunnel_conformance::{FaultProxy, Kind, Probe};
use tunnel_server::server_for_tunnels_with;

use crate::support::{Gateway, assert_usable, device, guarded};

/// The keepalive timeout: a frozen peer should be noticed within it.
const NOTICED: Duration = Duration::from_secs(2);

/// The bound that the test asserts. It leaves room for a busy machine.
const BOUND: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_connection_is_noticed_at_both_ends_and_replaced_when_it_thaws() {
    guarded(async {
        let probe = Probe::default();
        let any = ([127, 0, 0, 1], 0).into();
        let quick = |server| server_for_tunnels_with(server, NOTICED);
        let gateway = Gateway::start_at(any, quick).await;
        let network = FaultProxy::to(gateway.address).await;
        let dialled = Dialled::from(network.endpoint()).keepalive(Keepalive::new(NOTICED));
        let server = device("frozen", dialled, &probe).build();
        let handle = server.handle();
        let running = tokio::spawn(server.run());
        gateway.has(1).await;
        let client = gateway.client("frozen");
        assert_usable(&client).await;

        let script = Script::named("frozen").receive(1).pend();
        let call = run(&client, Kind::Unary, &script, vec![request(1, 10)]);
        let freeze = async {
            probe.received("frozen", 1).await;
            network.freeze();
            Instant::now()
        };
        let (outcome, frozen_at) = tokio::join!(call, freeze);
        // The gateway has noticed: its call fails, and its pool is empty.
        outcome.expect_failure(Code::Unavailable);
        gateway.has(0).await;
        // The device has noticed: it drops the call's handler and dials again.
        probe.dropped("frozen").await;
        let mut links = handle.watch();
        let noticed = links.wait_for(|links| links[0].last_down_reason().is_some());
        drop(noticed.await.expect("it runs"));
        let took = frozen_at.elapsed();
        assert!(took < BOUND, "noticed after {took:?}");

        network.thaw();
        gateway.has(1).await;
        assert_usable(&client).await;
        handle.close().await;
        running.await.expect("no panic");
    })
    .await;
}
