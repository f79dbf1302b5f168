//! The memory that floods of calls can take at a handler.
//!
//! A separate program, because it measures the live memory of the process.

use std::alloc::System;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{BufMut as _, Bytes, BytesMut};
use cap::Cap;
use futures::{StreamExt as _, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::task::JoinSet;
use tonic::Code;
use tonic::body::Body;
use tower::Service as _;
use tunnel_client::{Config, ForwardTunnel, TunnelChannel};
use tunnel_conformance::client::{open, run};
use tunnel_conformance::harness::guard;
use tunnel_conformance::payload::request;
use tunnel_conformance::proto::Script;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::service::scripted;
use tunnel_conformance::testing::eventually;
use tunnel_conformance::{Client, Kind, Probe, TestChannel};
use tunnel_server::{TunnelServiceHandler, TunnelServiceHandlerBuilder};

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// Runs one test at a time, until its last task has ended, because the tests measure the memory of
/// the process.
fn alone(test: impl Future<Output = ()>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(guard("the flood", test));
}

const MIB: usize = 1 << 20;

/// The largest message that tonic takes.
const MESSAGE: usize = 4 * MIB - 1;

const CALLS: usize = 64;
const TUNNELS: usize = 4;
const BUDGET: usize = 64 * MIB;

struct Flooded {
    handler: TunnelServiceHandler,
    tunnels: Vec<TunnelChannel>,
    before: usize,
}

impl Flooded {
    async fn start(
        settings: impl FnOnce(TunnelServiceHandlerBuilder) -> TunnelServiceHandlerBuilder,
    ) -> Self {
        let builder = TunnelServiceHandler::builder().add_service(scripted(&Probe::default()));
        let handler = settings(builder).build();
        let mut tunnels = Vec::new();
        for _ in 0..TUNNELS {
            let tunnel = ForwardTunnel::new(handler.service()).open().await;
            tunnels.push(tunnel.expect("accepted"));
        }
        let before = MEMORY.allocated();
        Self {
            handler,
            tunnels,
            before,
        }
    }

    fn costs(&self) -> usize {
        MEMORY.allocated().saturating_sub(self.before)
    }

    fn tunnel(&self, call: usize) -> TunnelChannel {
        self.tunnels[call % TUNNELS].clone()
    }

    /// Makes a call through a tunnel of its own.
    async fn assert_usable(&self) {
        let tunnel = ForwardTunnel::new(self.handler.service()).open().await;
        let client = TestServiceClient::new(TestChannel::new(tunnel.expect("accepted")));
        let script = Script::named("honest").echo_all();
        let outcome = run(&client, Kind::Bidi, &script, vec![request(1, 100_000)]).await;
        outcome.expect_success();
    }
}

/// A request that stops after more than a quarter of its message. By then the reader has reserved
/// memory for the whole message.
fn stalled_upload() -> http::Request<Body> {
    let mut beginning = BytesMut::new();
    beginning.put_u8(0);
    beginning.put_u32(MESSAGE as u32);
    let payload = Bytes::from_static(&[0; MIB + MIB / 4]);
    let pieces = stream::iter([beginning.freeze(), payload]);
    let frames = pieces.map(|piece| Ok::<_, tonic::Status>(Frame::data(piece)));
    let body = Body::new(StreamBody::new(frames.chain(stream::pending())));
    let path = "/tunnel.conformance.v1.TestService/ClientStream";
    let request = http::Request::post(path).body(body);
    request.expect("legal")
}

/// Begins uploads and counts those that fail.
fn flood_by_uploads(flooded: &Flooded, calls: &mut JoinSet<()>) -> Arc<AtomicUsize> {
    let failed = Arc::new(AtomicUsize::new(0));
    for call in 0..CALLS {
        let (mut tunnel, failed) = (flooded.tunnel(call), failed.clone());
        calls.spawn(async move {
            let response = tunnel.call(stalled_upload()).await;
            let response = response.map(|response| response.headers().clone());
            let status = match &response {
                Ok(headers) => tonic::Status::from_header_map(headers),
                Err(status) => Some(status.clone()),
            };
            let status = status.expect("a stalled upload ends with an error");
            assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
            failed.fetch_add(1, Ordering::Relaxed);
        });
    }
    failed
}

/// The handler has no memory budget. The documented formula holds and needs its term for the memory
/// that readers reserve.
#[test]
fn uploads_that_stall_cost_what_the_memory_formula_says() {
    alone(async {
        let streams = CALLS / TUNNELS;
        let buffered = 32 * MIB;
        let config = Config::builder()
            .max_concurrent_streams(streams)
            .max_buffered_bytes(buffered);
        let config = config.build().expect("valid");
        let flooded = Flooded::start(|b| b.config(config).memory_budget(usize::MAX)).await;
        let mut calls = JoinSet::new();
        let failed = flood_by_uploads(&flooded, &mut calls);
        eventually(|| flooded.costs() >= CALLS * MESSAGE).await;
        let reserved = CALLS * MESSAGE;
        let most = TUNNELS * 6 * buffered + reserved;
        assert!(flooded.costs() <= most, "{} > {most}", flooded.costs());
        assert_eq!(failed.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn uploads_that_stall_cost_no_more_than_the_budget() {
    alone(async {
        let flooded = Flooded::start(|builder| builder.memory_budget(BUDGET)).await;
        let mut calls = JoinSet::new();
        let failed = flood_by_uploads(&flooded, &mut calls);
        let fit = BUDGET / MESSAGE;
        eventually(|| failed.load(Ordering::Relaxed) >= CALLS - fit).await;
        // Uploads within the budget are not ended.
        assert!(failed.load(Ordering::Relaxed) <= CALLS - fit / 2);
        // The budget, bytes in flight, and the memory of both ends of the calls.
        let most = BUDGET + BUDGET / 2;
        eventually(|| flooded.costs() <= most).await;
        flooded.assert_usable().await;
    });
}

#[test]
fn downloads_that_nobody_reads_cost_no_more_than_the_budget() {
    alone(async {
        let flooded = Flooded::start(|builder| builder.memory_budget(BUDGET)).await;
        let mut calls = Vec::new();
        for call in 0..CALLS {
            let client: Client = TestServiceClient::new(TestChannel::new(flooded.tunnel(call)));
            let script = Script::named("flood")
                .receive(1)
                .send(1, MESSAGE - 1024, 1)
                .pend();
            let one = stream::iter([request(1, 10)]);
            match open(&client, Kind::Bidi, script.request(one)).await {
                Ok(call) => calls.push(call),
                // The call ended before its headers were read.
                Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
            }
        }
        let held = || -> usize {
            let stats = flooded.handler.stats();
            stats.iter().map(|(_, stats)| stats.queued_bytes).sum()
        };
        let streams = || -> usize {
            let stats = flooded.handler.stats();
            stats.iter().map(|(_, stats)| stats.streams).sum()
        };
        let fit = BUDGET / MESSAGE;
        eventually(|| streams() <= fit + 1 && held() <= BUDGET).await;
        assert!(streams() >= fit / 2);
        // tonic's encoding buffer may have twice the size of its content, which is what the queue
        // counts.
        let most = 2 * BUDGET + BUDGET / 2;
        eventually(|| flooded.costs() <= most).await;
        flooded.assert_usable().await;
    });
}
