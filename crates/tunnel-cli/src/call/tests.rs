//! `tunnel call` to a server behind an agent and a gateway on loopback.

use clap::Parser;
use tonic::Code;

use super::*;
use crate::agent::tests::{agent, gateway, local_anywhere, through};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

async fn called_at(address: std::net::SocketAddr, words: &[&str]) -> (Result<()>, String) {
    let cli = Cli::try_parse_from(["call", "seven"].iter().chain(words)).expect("legal");
    let mut out = Vec::new();
    let mut known = DescriptorPool::new();
    let result = call(through(address), &cli.args, &mut known, &mut out).await;
    (result, String::from_utf8(out).expect("text"))
}

#[tokio::test]
async fn a_call_by_reflection_prints_json() {
    let gateway = gateway().await;
    let (local, _) = local_anywhere().await;
    let _agent = agent(gateway.address, vec![local.address.to_string()]).await;
    let called = |words: &'static [&'static str]| called_at(gateway.address, words);

    let (result, out) = called(&["grpc.health.v1.Health/Check"]).await;
    result.expect("served");
    assert_eq!(out, "{\n  \"status\": \"SERVING\"\n}\n");

    let (result, out) = called(&[
        "grpc.health.v1.Health.Check",
        "-v",
        "-d",
        "{\"service\": \"\"}",
    ])
    .await;
    result.expect("served");
    assert!(out.contains("content-type: application/grpc"), "{out}");
    assert!(out.contains("Messages sent: 1, received: 1"), "{out}");

    let (result, out) = called(&["list"]).await;
    result.expect("served");
    assert!(out.contains("grpc.health.v1.Health\n"), "{out}");
    let (result, out) = called(&["list", "grpc.health.v1.Health"]).await;
    result.expect("served");
    assert!(out.contains("grpc.health.v1.Health.Watch\n"), "{out}");
    let (result, out) = called(&["describe", "grpc.health.v1.Health"]).await;
    result.expect("served");
    assert!(
        out.starts_with("grpc.health.v1.Health is a service:"),
        "{out}"
    );
    // Client streaming, by the service that tells the types.
    let (result, out) = called(&[
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "-d",
        "{\"list_services\": \"\"} {\"file_by_filename\": \"nothing\"}",
        "-v",
    ])
    .await;
    let status = result.expect_err("the second file is not there");
    let status = status.downcast_ref::<Status>().expect("a status");
    assert_eq!(status.code(), Code::NotFound);
    assert!(out.contains("listServicesResponse"), "{out}");
}

#[tokio::test]
async fn a_call_that_fails_has_the_status_of_the_server() {
    let gateway = gateway().await;
    let (local, _) = local_anywhere().await;
    let _agent = agent(gateway.address, vec![local.address.to_string()]).await;
    let called = |words: &'static [&'static str]| called_at(gateway.address, words);

    let words = &["grpc.health.v1.Health/Check", "-d", "{\"service\": \"x\"}"];
    let (result, _) = called(words).await;
    let error = result.expect_err("unknown");
    let status = error.downcast_ref::<Status>().expect("a status");
    assert_eq!(status.code(), Code::NotFound);

    let words = &["grpc.health.v1.Health/Watch", "--max-time", "0.3"];
    let (result, out) = called(words).await;
    let error = result.expect_err("it never ends");
    let status = error.downcast_ref::<Status>().expect("a status");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(out, "{\n  \"status\": \"SERVING\"\n}\n");

    for (words, reason) in [
        (
            &["grpc.health.v1.Health/Check", "-d", "{} {}"][..],
            "takes one message",
        ),
        (
            &["grpc.health.v1.Health/Check", "-d", "{"],
            "message 1 is no JSON",
        ),
        (&["grpc.health.v1.Health/Nothing"], "has no method"),
        (&["Check"], "not package.Service/Method"),
    ] {
        let (result, _) = called_at(gateway.address, words).await;
        let error = format!("{:#}", result.expect_err(reason));
        assert!(error.contains(reason), "{error}");
    }
}

#[tokio::test]
async fn a_file_has_the_types_of_a_server_without_reflection() {
    let gateway = gateway().await;
    let (local, _) = local_anywhere().await;
    // Only its health service is exposed.
    let to = format!("grpc.health={}", local.address);
    let _agent = agent(gateway.address, vec![to]).await;
    let method = "grpc.health.v1.Health/Check";
    let (result, _) = called_at(gateway.address, &[method]).await;
    let error = result.expect_err("no reflection").to_string();
    assert!(error.contains("--protoset"), "{error}");

    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), tonic_health::pb::FILE_DESCRIPTOR_SET).expect("written");
    let path = file.path().to_str().expect("text");
    let (result, out) = called_at(gateway.address, &[method, "--protoset", path]).await;
    result.expect("served");
    assert!(out.contains("SERVING"), "{out}");
}
