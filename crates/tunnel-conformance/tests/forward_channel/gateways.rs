//! Gateways that are added and removed while a channel is used.

use tonic::Code;
use tonic::transport::Endpoint;
use tunnel_client::{Gateway, Lookup};
use tunnel_conformance::Probe;

use crate::support::{
    Backend, LongCall, assert_usable, channel, client, eventually, guarded, short_call,
};

fn named(backend: &Backend, name: &str) -> Gateway {
    Gateway::from(backend.server.endpoint()).name(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_a_channel_moves_to_another_backend_and_back() {
    guarded(async {
        let probe = Probe::default();
        let backends = [Backend::start(&probe).await, Backend::start(&probe).await];
        let channel = channel(named(&backends[0], "0")).connect().await;
        let channel = channel.expect("it connects");
        let client = client(&channel);
        let handle = channel.handle();
        for round in 0..6 {
            let (old, new) = (round % 2, (round + 1) % 2);
            let long = LongCall::begin(&client, &probe, &format!("round {round}")).await;
            let added = named(&backends[new], &new.to_string());
            handle.add_gateway(added).expect("it runs");
            assert!(handle.remove_gateway(&old.to_string()));
            // The old tunnel still has a call.
            while backends[new].handler.tunnels().is_empty() || channel.tunnels().len() > 1 {
                assert_usable(&client).await;
            }
            assert_usable(&client).await;
            long.finish().await.expect_success();
            backends[old].has(0).await;
            eventually(|| handle.links().len() == 1).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_channel_without_backends_fail_until_one_is_added() {
    guarded(async {
        let backend = Backend::start(&Probe::default()).await;
        let channel = channel(named(&backend, "only")).connect().await;
        let channel = channel.expect("it connects");
        let client = client(&channel);
        let handle = channel.handle();
        for _ in 0..3 {
            assert_usable(&client).await;
            handle.remove_gateway("only");
            eventually(|| channel.tunnels().is_empty()).await;
            let refused = short_call(&client).await;
            refused.expect_failure(Code::Unavailable);
            handle
                .add_gateway(named(&backend, "only"))
                .expect("it runs");
            assert_eq!(handle.all_connected().await, Ok(()));
        }
        drop((channel, client));
        backend.has(0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_wait_for_the_first_lookup_of_a_name_and_fail_if_it_fails() {
    guarded(async {
        let backend = Backend::start(&Probe::default()).await;
        let port = backend.server.address().port();
        let name = || Endpoint::from_shared(format!("http://localhost:{port}")).expect("legal");
        let lookup = Lookup::system().filter(|address| address.is_ipv4());
        let found = channel(Gateway::from(name()).each_address(lookup)).connect_lazy();
        assert_usable(&client(&found)).await;
        let connected = channel(Gateway::from(name()).each_address(Lookup::system())).connect();
        assert_usable(&client(&connected.await.expect("it connects"))).await;

        let nothing = Lookup::system().filter(|_| false);
        let nowhere = channel(Gateway::from(name()).each_address(nothing)).connect_lazy();
        let status = short_call(&client(&nowhere)).await;
        status.expect_failure(Code::Unavailable);
    })
    .await;
}
