//! Other shapes than one gateway with two listeners and one agent with one server.

use std::fs;

use tonic_health::pb::health_check_response::ServingStatus;
use tunnel_process::{Process, Show};

use crate::calls::{Caller, server};
use crate::programs::{Gateway, TIMEOUT, free_port, terminate, tunnel, wait_for};

#[tokio::test]
async fn agents_and_clients_may_share_an_address() {
    let (server, _reporter) = server().await;
    let address = free_port().to_string();
    let mut gateway = Gateway::start_at(&address, &address, &[]).await;
    assert_eq!(gateway.agents, gateway.clients);
    let _agent = gateway.agent("device", &server.address().to_string()).await;
    let channel = gateway.channel();
    Caller::of("device")
        .check(&channel)
        .await
        .expect("it is connected");
    Caller::default()
        .check(&gateway.channel_of("device"))
        .await
        .expect("by its authority");
    drop(channel);
    terminate(&mut gateway.process);
}

#[tokio::test]
async fn an_agent_is_at_all_its_gateways_and_goes_on_when_one_stops() {
    let (server, _reporter) = server().await;
    let (mut one, other) = (Gateway::start(&[]).await, Gateway::start(&[]).await);
    let gateways = format!("{},{}", one.agents, other.agents);
    let to = server.address().to_string();
    let mut agent = tunnel(&[
        "agent",
        "--gateway",
        &gateways,
        "--key",
        "device",
        "--to",
        &to,
    ]);
    let _agent = Process::start(&mut agent, Show::Nothing).expect("it starts");
    for gateway in [&one, &other] {
        gateway.wait_for("device", ServingStatus::Serving).await;
        Caller::of("device")
            .check(&gateway.channel())
            .await
            .expect("it is connected");
    }
    let channel = other.channel();
    let mut stream = Caller::of("device")
        .watch(&channel)
        .await
        .expect("it is connected");
    terminate(&mut one.process);
    Caller::of("device")
        .check(&channel)
        .await
        .expect("the other gateway goes on");
    wait_for(channel, "device", ServingStatus::Serving).await;
    tokio::select! {
        biased;
        ended = stream.message() => panic!("the call goes on: {ended:?}"),
        () = std::future::ready(()) => {}
    }
}

#[tokio::test]
async fn a_mistake_in_the_settings_of_a_running_gateway_is_told_and_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("gateway.toml");
    fs::write(&file, "max-tunnels = 7\n").expect("it is written");
    let mut gateway = Gateway::start(&["--config", file.to_str().expect("text")]).await;
    for (text, told) in [
        ("max-tunels = 7\n", "max-tunels"),
        ("max-tunnels = 8\n", "a restart is needed"),
    ] {
        fs::write(&file, text).expect("it is written");
        let said = async {
            while let Some(line) = gateway.process.next_line_async().await {
                if line.text.contains(told) {
                    return;
                }
            }
            panic!("the gateway has ended");
        };
        tokio::time::timeout(TIMEOUT, said)
            .await
            .expect("it is told");
    }
    Caller::default()
        .check(&gateway.channel())
        .await
        .expect("it goes on");
}
