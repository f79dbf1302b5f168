//! Errors that tell what is wrong.

use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::programs::{Gateway, terminate};

async fn check(gateway: &Gateway, key: Option<&str>) -> Result<i32, tonic::Status> {
    let mut request = Request::new(HealthCheckRequest::default());
    if let Some(key) = key {
        let key = key.parse().expect("legal");
        request.metadata_mut().insert("tunnel-key", key);
    }
    let mut client = HealthClient::new(gateway.channel());
    Ok(client.check(request).await?.into_inner().status)
}

#[tokio::test]
async fn a_call_without_a_key_or_to_nobody_is_told_why() {
    let gateway = Gateway::start(&[]).await;
    let path = http::uri::PathAndQuery::from_static("/a.Service/Method");
    let mut client = tonic::client::Grpc::new(gateway.channel());
    client.ready().await.expect("the gateway runs");
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let status = client
        .unary(Request::new(()), path, codec)
        .await
        .expect_err("no key");
    assert_eq!(status.code(), Code::InvalidArgument);
    for part in ["\"tunnel-key\"", "KEY.tunnels.example"] {
        assert!(status.message().contains(part), "{status:?}");
    }
    let status = check(&gateway, Some("nobody"))
        .await
        .expect_err("not there");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status.message().contains("\"nobody\" is not connected"),
        "{status:?}"
    );
    assert!(status.message().contains("never seen"), "{status:?}");
    assert_eq!(
        check(&gateway, None).await.expect("itself"),
        ServingStatus::Serving as i32
    );
}

#[tokio::test]
async fn a_device_that_has_left_was_last_seen_some_time_ago() {
    let gateway = Gateway::start(&[]).await;
    let mut agent = gateway.agent("seven", "127.0.0.1:1").await;
    terminate(&mut agent);
    gateway.wait_for("seven", ServingStatus::NotServing).await;
    let status = check(&gateway, Some("seven")).await.expect_err("away");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status
            .message()
            .contains("\"seven\" is not connected (last seen "),
        "{status:?}"
    );
}

#[tokio::test]
async fn a_server_that_is_down_is_told_apart_from_a_device_that_is_away() {
    let gateway = Gateway::start(&[]).await;
    let _agent = gateway.agent("seven", "127.0.0.1:1").await;
    let status = check(&gateway, Some("seven"))
        .await
        .expect_err("nobody listens");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("127.0.0.1:1"), "{status:?}");
}
