//! Processes that are killed.

use tonic::Code;
use tunnel_client::{ConnectionError, DownReason, EndReason, LinkState};
use tunnel_conformance::client::run;
use tunnel_conformance::payload::request;
use tunnel_conformance::proto::Script;
use tunnel_conformance::{Kind, Probe};

use crate::support::{Gateway, assert_usable, client, device, eventually, guarded, runtime};

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_mid_call_is_back_on_its_port_and_calls_its_device() {
    guarded(async {
        let probe = Probe::default();
        let gateway = Gateway::start().await;
        let server = device("one", gateway.endpoint(), &probe).build();
        let handle = server.handle();
        let running = tokio::spawn(server.run());
        gateway.has(1).await;
        assert_usable(&gateway.client("one")).await;

        let client = gateway.client("one");
        let call = tokio::spawn(async move {
            let script = Script::named("cut").receive(1).pend();
            run(&client, Kind::Unary, &script, vec![request(1, 10)]).await
        });
        probe.received("cut", 1).await;
        let address = gateway.kill().await;
        let failed = call.await.expect("no panic");
        let status = failed.expect_failure(Code::Unavailable);
        assert!(
            status.message().contains("may have been processed"),
            "{status:?}"
        );
        // The device notices too, and drops the call's handler.
        probe.dropped("cut").await;

        let gateway = Gateway::start_at(address, |server| server).await;
        gateway.has(1).await;
        assert_usable(&gateway.client("one")).await;
        handle.all_connected().await.expect("it runs");
        let links = handle.links();
        assert!(links[0].attempts() >= 2, "{links:?}");
        assert!(links[0].last_down_reason().is_some(), "{links:?}");
        handle.close().await;
        running.await.expect("no panic");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_killed_mid_call_is_gone_from_the_pool_and_its_call_fails() {
    guarded(async {
        let probe = Probe::default();
        let gateway = Gateway::start().await;
        let process = runtime("device");
        let first = device("one", gateway.endpoint(), &probe).build();
        process.spawn(first.run());
        gateway.has(1).await;
        let client = gateway.client("one");
        let script = Script::named("cut").receive(1).pend();
        let call = run(&client, Kind::Unary, &script, vec![request(1, 10)]);
        let kill = async {
            probe.received("cut", 1).await;
            process.shutdown_background();
        };
        let (outcome, ()) = tokio::join!(call, kill);
        let status = outcome.expect_failure(Code::Unavailable);
        assert!(
            status.message().contains("may have been processed"),
            "{status:?}"
        );
        gateway.has(0).await;
        let outcome = run(&client, Kind::Unary, &script, vec![request(1, 10)]).await;
        let status = outcome.expect_failure(Code::Unavailable);
        assert!(status.message().contains("\"one\""), "{status:?}");

        // The device comes back as another process.
        let second = device("one", gateway.endpoint(), &probe).build();
        let running = tokio::spawn(second.run());
        gateway.has(1).await;
        assert_usable(&client).await;
        running.abort();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_of_a_killed_device_go_to_its_sibling_from_then_on() {
    guarded(async {
        let probe = Probe::default();
        let gateway = Gateway::start().await;
        let process = runtime("device");
        process.spawn(device("doomed", gateway.endpoint(), &probe).build().run());
        let sibling = device("sibling", gateway.endpoint(), &probe).build();
        let running = tokio::spawn(sibling.run());
        gateway.has(2).await;
        process.shutdown_background();
        gateway.has(1).await;
        let all = client(gateway.handler.as_channel());
        for _ in 0..10 {
            assert_usable(&all).await;
        }
        running.abort();
        eventually(|| gateway.handler.tunnels().is_empty()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_away_is_dialled_until_it_is_there() {
    guarded(async {
        let probe = Probe::default();
        let address = Gateway::start().await.kill().await;
        let gone = format!("http://{address}");
        let endpoint = tonic::transport::Endpoint::from_shared(gone).expect("valid");
        let server = device("early", endpoint, &probe).build();
        let handle = server.handle();
        let running = tokio::spawn(server.run());
        let mut links = handle.watch();
        let failed = links.wait_for(|links| {
            let failed = |link: &tunnel_client::LinkStatus| {
                link.attempts() >= 3 && matches!(link.state(), LinkState::BackingOff { .. })
            };
            links.first().is_some_and(failed)
        });
        drop(failed.await.expect("it runs"));
        let gateway = Gateway::start_at(address, |server| server).await;
        gateway.has(1).await;
        assert_usable(&gateway.client("early")).await;
        running.abort();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kicked_device_gets_the_reason_and_backs_off() {
    guarded(async {
        let probe = Probe::default();
        let gateway = Gateway::start().await;
        let server = device("revoked", gateway.endpoint(), &probe).build();
        let handle = server.handle();
        let running = tokio::spawn(server.run());
        gateway.has(1).await;
        let reason = tonic::Status::permission_denied("the device was revoked");
        assert_eq!(gateway.handler.close_key_with("revoked", reason), 1);
        let mut links = handle.watch();
        let refused = links.wait_for(|links| {
            matches!(
                links[0].state(),
                LinkState::BackingOff { refused: true, .. }
            )
        });
        let link = refused.await.expect("it runs")[0].clone();
        let Some(DownReason::Ended(EndReason::Error(ConnectionError::EndedByPeer(status)))) =
            link.last_down_reason()
        else {
            panic!("{link:?}");
        };
        assert_eq!(status.message, "the device was revoked");
        gateway.has(0).await;
        running.abort();
    })
    .await;
}
