//! TCP through a tunnel.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tunnel_process::{Process, Show};

use crate::programs::{Gateway, TIMEOUT, tunnel};

/// More than all buffers on the path hold.
const LARGE: usize = 64 << 20;

/// Starts `tunnel forward`; returns it and its port.
async fn forward(gateway: &Gateway, what: &str) -> (Process, SocketAddr) {
    let clients = gateway.clients.to_string();
    let mut command = tunnel(&["forward", what, "--gateway", &clients]);
    let mut forward = Process::start(&mut command, Show::Nothing).expect("it starts");
    let port = forward.next_stdout_line().await.expect("it listens");
    (forward, port.parse().expect("an address"))
}

/// A server that reads everything, then answers with the number of bytes, then closes.
async fn counting_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut all = Vec::new();
                if socket.read_to_end(&mut all).await.is_ok() {
                    let _ = socket.write_all(all.len().to_string().as_bytes()).await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_tcp_port_of_the_agent_is_a_local_port_with_both_halves() {
    let server = counting_server().await;
    let gateway = Gateway::start(&[]).await;
    let _agent = gateway
        .agent("device", &format!("count=tcp:{server}"))
        .await;
    let (_forward, port) = forward(&gateway, "device:count").await;
    let talk = async {
        let mut socket = TcpStream::connect(port).await.expect("it listens");
        socket.write_all(&vec![7; LARGE]).await.expect("it is read");
        // The server answers after this half has ended.
        socket.shutdown().await.expect("open");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("an answer");
        assert_eq!(answer, LARGE.to_string());
    };
    tokio::time::timeout(TIMEOUT, talk)
        .await
        .expect("it is answered");
}

#[tokio::test]
async fn a_socket_that_is_not_read_holds_its_sender_back_and_nobody_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let server = listener.local_addr().expect("bound");
    let gateway = Gateway::start(&[]).await;
    let _agent = gateway
        .agent("device", &format!("server=tcp:{server}"))
        .await;
    let (_forward, port) = forward(&gateway, "device:server").await;
    let mut stuck = TcpStream::connect(port).await.expect("it listens");
    let (_unread, _) = listener.accept().await.expect("it is passed on");
    let large = vec![7; LARGE];
    let writing = stuck.write_all(&large);
    let other = async {
        let mut socket = TcpStream::connect(port).await.expect("it listens");
        let (mut far, _) = listener.accept().await.expect("it is passed on");
        socket.write_all(b"ping").await.expect("open");
        let mut ping = [0; 4];
        far.read_exact(&mut ping).await.expect("it arrives");
        far.write_all(b"pong").await.expect("open");
        socket.read_exact(&mut ping).await.expect("it arrives");
        assert_eq!(&ping, b"pong");
    };
    tokio::select! {
        written = writing => panic!("nobody reads: {written:?}"),
        talked = tokio::time::timeout(TIMEOUT, other) => talked.expect("the other goes on"),
    }
}

#[tokio::test]
async fn a_port_that_the_agent_does_not_expose_is_closed_at_once() {
    let gateway = Gateway::start(&[]).await;
    let _agent = gateway.agent("device", "ssh=tcp:127.0.0.1:1").await;
    for (port, reason) in [
        ("telnet", "the agent exposes no TCP port"),
        (
            "ssh",
            "the agent cannot reach tcp:127.0.0.1:1: connection refused",
        ),
    ] {
        let (mut process, port) = forward(&gateway, &format!("device:{port}")).await;
        let mut socket = TcpStream::connect(port).await.expect("it listens");
        let mut nothing = Vec::new();
        // An end or a reset.
        let _ = tokio::time::timeout(TIMEOUT, socket.read_to_end(&mut nothing)).await;
        assert!(nothing.is_empty());
        let told = async {
            while let Some(line) = process.next_line_async().await {
                if line.text.contains(reason) {
                    return;
                }
            }
            panic!("no reason: {}", process.last_words());
        };
        tokio::time::timeout(TIMEOUT, told).await.expect("a reason");
    }
}
