//! The lines and spans of tunnels and their calls.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use futures::FutureExt as _;
use http::HeaderValue;
use tokio::runtime::Runtime;
use tonic::service::InterceptorLayer;
use tonic::{Code, Request, Status};
use tracing::{Instrument as _, Level};
use tracing_subscriber::filter::LevelFilter;
use tunnel_client::ForwardTunnel;
use tunnel_conformance::client::{run, unlimited};
use tunnel_conformance::payload::request;
use tunnel_conformance::proto::Script;
use tunnel_conformance::testing::{LongCall, assert_usable, eventually, guarded};
use tunnel_conformance::{Kind, Probe, TestChannel};
use tunnel_server::TunnelServiceHandler;

use crate::record::{Line, Recorded};
use crate::{Ends, builder};

/// The lines of both ends with this message: one of the end that dialled, one of the end that accepted.
fn both(log: &Recorded, message: &str) -> [Line; 2] {
    let mut lines = log.said(message);
    lines.sort_by_key(|line| line.get("tunnel.role").to_owned());
    let roles: Vec<_> = lines.iter().map(|line| line.get("tunnel.role")).collect();
    assert_eq!(roles, ["client", "server"], "{message}: {:?}", log.lines());
    lines.try_into().expect("two")
}

#[tokio::test]
async fn both_ends_tell_of_a_tunnel_under_one_id_and_nothing_of_its_calls() {
    guarded(async {
        let log = Recorded::start();
        let ends = Ends::open().await;
        let id = ends.tunnel.info().shared_id();
        assert_eq!(ends.handler.tunnels()[0].info().shared_id(), id);
        for _ in 0..10 {
            assert_usable(&ends.client).await;
        }
        // A drained tunnel without a call in flight is closed at once.
        let long = LongCall::begin(&ends.client, &ends.probe, "long").await;
        let mut draining = Box::pin(ends.handler.drain(Duration::from_secs(60)));
        assert!(futures::poll!(&mut draining).is_pending());
        ends.tunnel.draining().await;
        long.finish().await.expect_success();
        draining.await;
        eventually(|| log.said("tunnel closed").len() == 2).await;
        for message in ["tunnel open", "tunnel draining", "tunnel closed"] {
            for line in both(&log, message) {
                assert_eq!(line.level, Level::INFO);
                assert_eq!(line.get("tunnel.id"), id);
                assert_eq!(line.get("tunnel.direction"), "forward");
            }
        }
        let [near, far] = both(&log, "tunnel closed");
        assert!(near.get("reason").starts_with("the peer "));
        assert_eq!(far.get("reason"), "the tunnel was drained");
        for line in [&near, &far] {
            assert_eq!(line.get("tunnel.key"), "k");
        }
        for line in [near, far] {
            assert_eq!(line.get("calls"), "11");
            assert_ne!(line.get("bytes_sent"), "0");
            assert_ne!(line.get("bytes_received"), "0");
            assert!(line.get("duration_s").parse::<f64>().is_ok());
        }
        let mut lines = log.lines();
        lines.retain(|line| line.level <= Level::INFO);
        assert_eq!(lines.len(), 6, "quiet under load: {lines:?}");
    })
    .await;
}

#[tokio::test]
async fn a_refused_opening_is_told_with_its_reason() {
    guarded(async {
        let log = Recorded::start();
        let handler = builder(&Probe::default())
            .admit(|_| async { Err(Status::permission_denied("no\x1b[2J")) })
            .build();
        let refused = ForwardTunnel::new(handler.service()).open().await;
        refused.expect_err("it is not admitted");
        let [line] = log.said("tunnel refused").try_into().expect("one line");
        assert_eq!(line.get("detail"), "no\x1b[2J");
        assert_eq!(line.get("rpc.grpc.status_code"), "7");
        assert_eq!(line.level, Level::INFO);
        assert_eq!(line.get("reason"), "not_admitted");
        assert_eq!(line.get("tunnel.key"), "k");
    })
    .await;
}

#[tokio::test]
async fn a_call_has_a_span_at_each_end_with_the_names_of_opentelemetry() {
    guarded(async {
        let log = Recorded::start();
        let ends = Ends::open().await;
        let id = ends.tunnel.info().shared_id();
        let script = Script::named("fails").fail(Code::NotFound, "as asked");
        let asking = tracing::info_span!(target: "telemetry", "asking");
        let call = run(&ends.client, Kind::Unary, &script, vec![request(1, 10)]);
        call.instrument(asking).await.expect_failure(Code::NotFound);
        eventually(|| log.said("call finished").len() == 2).await;
        let mut lines = log.said("call finished");
        lines.sort_by_key(|line| line.get("otel.kind").to_owned());
        let (spans, errors) = (
            [&["asking", "call"][..], &["call"]],
            // A code that is the caller's own mistake is no error of the handler.
            ["ERROR", ""],
        );
        for ((line, spans), error) in lines.iter().zip(spans).zip(errors) {
            assert_eq!(line.level, Level::DEBUG);
            assert_eq!(line.spans, spans);
            assert_eq!(line.get("rpc.system"), "grpc");
            assert_eq!(line.get("rpc.service"), "tunnel.conformance.v1.TestService");
            assert_eq!(line.get("rpc.method"), "Unary");
            assert_eq!(line.get("rpc.grpc.status_code"), "5");
            assert_eq!(
                line.get("otel.name"),
                "tunnel.conformance.v1.TestService/Unary"
            );
            assert_eq!(line.get("otel.status_code"), error);
            assert_eq!(line.get("tunnel.id"), id);
        }
        assert_eq!(lines[0].get("otel.kind"), "client");
        assert_eq!(lines[1].get("otel.kind"), "server");
        assert_eq!(lines[1].get("tunnel.key"), "k");
    })
    .await;
}

#[tokio::test]
async fn layers_and_handlers_run_in_the_span_of_their_call() {
    fn say(request: Request<()>) -> Result<Request<()>, Status> {
        tracing::info!(target: "telemetry", "in the layer");
        Ok(request)
    }
    guarded(async {
        let log = Recorded::start();
        let probe = Probe::default();
        let handler: TunnelServiceHandler =
            builder(&probe).layer(InterceptorLayer::new(say)).build();
        let ends = Ends::over(handler, probe).await;
        assert_usable(&ends.client).await;
        let [line] = log.said("in the layer").try_into().expect("one call");
        assert_eq!(line.spans, ["call"]);
        assert_eq!(line.get("otel.kind"), "server");
    })
    .await;
}

#[tokio::test]
async fn every_way_to_end_has_its_code_in_the_span() {
    guarded(async {
        let log = Recorded::start();
        let ends = Ends::open().await;
        let code = |name: &str, kind: &str| {
            let lines = log.said("call finished");
            let of = lines.iter().filter(|line| line.get("otel.kind") == kind);
            let codes: Vec<_> = of
                .map(|line| line.get("rpc.grpc.status_code").to_owned())
                .collect();
            codes
                .last()
                .cloned()
                .unwrap_or_else(|| panic!("{name}: {kind}"))
        };
        let finished = |n: usize| {
            eventually({
                let log = &log;
                move || log.said("call finished").len() == n
            })
        };
        // The handler panics.
        let script = Script::named("panics").panic("as the test wants it");
        let outcome = run(&ends.client, Kind::Unary, &script, vec![request(1, 10)]).await;
        outcome.expect_failure(Code::Internal);
        finished(2).await;
        assert_eq!(
            (code("panic", "client"), code("panic", "server")),
            ("13".into(), "13".into())
        );
        // The caller gives up.
        let script = Script::named("pends").receive(1).pend();
        let mut call = Box::pin(run(
            &ends.client,
            Kind::Unary,
            &script,
            vec![request(1, 10)],
        ));
        let started = ends.probe.started("pends");
        futures::future::select(&mut call, Box::pin(started)).await;
        drop(call);
        finished(4).await;
        assert_eq!(
            (code("cancel", "client"), code("cancel", "server")),
            ("1".into(), "1".into())
        );
        // The tunnel ends.
        let mut call = Box::pin(run(&ends.client, Kind::Bidi, &script, vec![request(1, 10)]));
        let started = ends.probe.until("pends", |record| record.started == 2);
        futures::future::select(&mut call, Box::pin(started)).await;
        ends.tunnel.close().await;
        call.await.expect_failure(Code::Unavailable);
        finished(6).await;
        assert_eq!(
            (code("close", "client"), code("close", "server")),
            ("14".into(), "14".into())
        );
    })
    .await;
}

/// The hooks make the spans at `info`, so a trace does not break at the usual level.
#[tokio::test]
async fn the_span_of_a_caller_reaches_the_span_of_its_handler_at_level_info() {
    fn say(request: Request<()>) -> Result<Request<()>, Status> {
        tracing::info!(target: "telemetry", "in the layer");
        Ok(request)
    }
    guarded(async {
        let log = Recorded::start_at(LevelFilter::INFO);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (sent, received) = (seen.clone(), seen.clone());
        let probe = Probe::default();
        let handler = builder(&probe)
            .layer(InterceptorLayer::new(say))
            .extract_trace(move |span, metadata| {
                assert!(!span.is_disabled());
                let parent = metadata["traceparent"].clone();
                received.lock().expect("no panic").push(parent);
            })
            .build();
        let tunnel = ForwardTunnel::new(handler.service()).inject_trace(move |span, metadata| {
            let id = span.id().expect("it is enabled").into_u64();
            let id = HeaderValue::from(id);
            sent.lock().expect("no panic").push(id.clone());
            metadata.insert("traceparent", id);
        });
        let tunnel = tunnel.open().await.expect("accepted");
        assert_usable(&unlimited(TestChannel::new(tunnel))).await;
        let seen = seen.lock().expect("no panic");
        let [sent, received] = &seen[..] else {
            panic!("{seen:?}");
        };
        assert_eq!(sent, received);
        let [line] = log.said("in the layer").try_into().expect("one call");
        assert_eq!(line.spans, ["call"]);
    })
    .await;
}

/// Shuts a runtime down when it is woken.
struct ShutDown(Mutex<Option<Runtime>>);

impl Wake for ShutDown {
    fn wake(self: Arc<Self>) {
        drop(self.0.lock().expect("no panic").take());
    }
}

/// A task that waits for the end of a tunnel may end its driver at once.
#[test]
fn a_tunnel_that_is_closed_while_its_end_is_told_is_closed_once() {
    let log = Recorded::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let runtime = runtime.expect("a runtime");
    let ends = runtime.block_on(Ends::open());
    let shut_down = Waker::from(Arc::new(ShutDown(Mutex::new(Some(runtime)))));
    let mut draining = pin!(ends.tunnel.draining());
    let waiting = draining.as_mut().poll(&mut Context::from_waker(&shut_down));
    assert!(waiting.is_pending());
    let closed = ends.tunnel.close().now_or_never();
    assert!(closed.is_some(), "the runtime has gone");
    for line in both(&log, "tunnel closed") {
        assert_eq!(line.get("tunnel.direction"), "forward");
    }
}
