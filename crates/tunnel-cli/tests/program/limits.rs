//! Limits of a key, and the audit log.

use std::time::Duration;

use serde_json::Value;
use tonic::Code;

use crate::calls::{Caller, server};
use crate::programs::{Gateway, terminate};

#[tokio::test]
async fn a_key_has_as_many_calls_in_flight_as_are_allowed() {
    let (server, _reporter) = server().await;
    let gateway = Gateway::start(&["--max-calls-of-key", "1"]).await;
    let _agent = gateway.agent("device", &server.address().to_string()).await;
    let (channel, caller) = (gateway.channel(), Caller::of("device"));
    let stream = caller.watch(&channel).await.expect("the first");
    let status = caller.check(&channel).await.expect_err("one too many");
    assert_eq!(status.code(), Code::ResourceExhausted);
    drop(stream);
    // The gateway hears of the end of the stream a little later.
    let freed = async { while caller.check(&channel).await.is_err() {} };
    tokio::time::timeout(crate::programs::TIMEOUT, freed)
        .await
        .expect("there is room again");
}

#[tokio::test]
async fn each_call_is_a_line_of_the_audit_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("audit.jsonl");
    let (server, _reporter) = server().await;
    let mut gateway = Gateway::start(&["--audit-log", log.to_str().expect("text")]).await;
    let _agent = gateway.agent("device", &server.address().to_string()).await;
    let channel = gateway.channel();
    Caller::of("device")
        .check(&channel)
        .await
        .expect("it is connected");
    Caller::of("nobody")
        .check(&channel)
        .await
        .expect_err("it is not");
    drop(channel);
    terminate(&mut gateway.process);
    let text = std::fs::read_to_string(&log).expect("a log");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let of = |key: &str| {
        lines
            .iter()
            .find(|line| line["key"] == key)
            .unwrap_or_else(|| panic!("{text}"))
    };
    let device = of("device");
    assert_eq!(device["status"], "OK");
    assert_eq!(device["method"], "/grpc.health.v1.Health/Check");
    // A message of health is two bytes, and its frame has a head of five.
    assert_eq!(device["bytes_sent"], 7);
    assert_eq!(device["bytes_received"], 5);
    assert!(
        device["duration_ms"]
            .as_f64()
            .is_some_and(|ms| ms < Duration::from_secs(60).as_secs_f64() * 1e3)
    );
    assert!(
        device["peer"]
            .as_str()
            .is_some_and(|peer| peer.starts_with("127.0.0.1:"))
    );
    assert_eq!(of("nobody")["status"], "UNAVAILABLE");
}
