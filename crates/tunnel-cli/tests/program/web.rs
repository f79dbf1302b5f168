//! gRPC-Web, as a page in a browser speaks it: over HTTP/1.1.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::calls::server;
use crate::programs::Gateway;

async fn answer(gateway: &Gateway, head: &str, body: &[u8]) -> String {
    let mut connection = TcpStream::connect(gateway.clients)
        .await
        .expect("it listens");
    let length = body.len();
    let head =
        format!("{head}\r\nhost: gateway\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    connection
        .write_all(head.as_bytes())
        .await
        .expect("it is read");
    connection.write_all(body).await.expect("it is read");
    let mut answer = Vec::new();
    connection
        .read_to_end(&mut answer)
        .await
        .expect("it is sent");
    String::from_utf8_lossy(&answer).to_lowercase()
}

#[tokio::test]
async fn a_page_calls_a_device_over_http_1() {
    let (server, _reporter) = server().await;
    let gateway = Gateway::start(&["--web-origins", "https://app.example"]).await;
    let _agent = gateway.agent("device", &server.address().to_string()).await;
    let call = "POST /grpc.health.v1.Health/Check HTTP/1.1\r\ncontent-type: application/grpc-web+proto\r\n\
                origin: https://app.example\r\ntunnel-key: device";
    let answer = answer(&gateway, call, &[0; 5]).await;
    for part in [
        "http/1.1 200",
        "access-control-allow-origin: https://app.example",
        "content-type: application/grpc-web+proto",
        "grpc-status:0",
    ] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_is_not_allowed_to_call() {
    let gateway = Gateway::start(&["--web-origins", "https://app.example"]).await;
    let ask = "OPTIONS /grpc.health.v1.Health/Check HTTP/1.1\r\norigin: https://evil.example\r\n\
               access-control-request-method: POST";
    let answer = answer(&gateway, ask, &[]).await;
    assert!(!answer.contains("access-control-allow-origin"), "{answer}");
}
