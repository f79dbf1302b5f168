//! Tracing: one trace over a plain client, a gateway and a device.
//!
//! The W3C trace context is metadata of a call (`traceparent`), and travels through a tunnel as any other. The
//! client and the gateway put it into their calls; the gateway and the device take it from the calls that they
//! serve, by `inject_trace` and `extract_trace` of a tunnel, whose calls then have spans at level `info`.
//!
//! ```text
//! client ── plain gRPC ──▶ gateway ══ reverse tunnel ══▶ device
//! ```
//!
//! OpenTelemetry prints all spans. Another exporter, such as OTLP, sends them to a collector.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use example_support::echo::Echo;
use example_support::serve::on_loopback;
use example_support::test::echo_service_client::EchoServiceClient;
use example_support::test::echo_service_server::{EchoService, EchoServiceServer};
use example_support::test::{EchoErrorRequest, EchoRequest, EchoResponse};
use http::HeaderMap;
use opentelemetry::global;
use opentelemetry::trace::{SpanId, SpanKind, TracerProvider as _};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tonic::metadata::MetadataMap;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};
use tracing::{Instrument as _, Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tunnel_client::ReverseTunnelServer;
use tunnel_server::{ReverseChannel, TunnelServiceHandler, server_for_tunnels_and_calls};

/// Puts a span into the metadata of a call.
fn inject(span: &Span, metadata: &mut HeaderMap) {
    let context = span.context();
    global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&context, &mut HeaderInjector(metadata));
    });
}

/// The same for a client without a tunnel, whose span is the current one.
fn inject_current(mut request: Request<()>) -> Result<Request<()>, Status> {
    let mut headers = std::mem::take(request.metadata_mut()).into_headers();
    inject(&Span::current(), &mut headers);
    *request.metadata_mut() = MetadataMap::from_headers(headers);
    Ok(request)
}

/// Makes the span in the metadata of a call the parent of another one.
fn extract(span: &Span, metadata: &HeaderMap) {
    let extractor = HeaderExtractor(metadata);
    let parent = global::get_text_map_propagator(|propagator| propagator.extract(&extractor));
    // Fails only for a span without OpenTelemetry.
    let _ = span.set_parent(parent);
}

/// The gateway's service, which asks a device.
struct Relay(ReverseChannel);

#[tonic::async_trait]
impl EchoService for Relay {
    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        let mut device = EchoServiceClient::new(self.0.clone());
        device.echo(request.into_inner()).await
    }

    async fn echo_error(
        &self,
        _: Request<EchoErrorRequest>,
    ) -> Result<Response<EchoResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let spans = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(opentelemetry_stdout::SpanExporter::default())
        .with_simple_exporter(spans.clone())
        .build();
    global::set_text_map_propagator(TraceContextPropagator::new());
    tracing_subscriber::registry()
        // The program's own spans, and those of tunnelled calls.
        .with(EnvFilter::new(concat!(
            module_path!(),
            "=info,tunnel_tonic::call=info"
        )))
        .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("cookbook")))
        .init();

    let handler = TunnelServiceHandler::builder().inject_trace(inject).build();
    let devices = handler.as_channel();
    let server = server_for_tunnels_and_calls(Server::builder())
        .trace_fn(|request| {
            let span = info_span!("gateway", path = request.uri().path());
            extract(&span, request.headers());
            span
        })
        .add_service(handler.service())
        .add_service(EchoServiceServer::new(Relay(devices.clone())));
    let gateway = Endpoint::from_shared(format!("http://{}", on_loopback(server).await?))?;

    let device = ReverseTunnelServer::builder(gateway.clone())
        .add_service(EchoServiceServer::new(Echo))
        .extract_trace(extract);
    tokio::spawn(device.run());
    devices.wait_for_ready(Duration::from_secs(30)).await?;

    let mut client = EchoServiceClient::with_interceptor(gateway.connect().await?, inject_current);
    let request = EchoRequest {
        message: "Hello".into(),
    };
    client
        .echo(request)
        .instrument(info_span!("client"))
        .await?;
    provider.force_flush()?;
    let spans = spans.get_finished_spans()?;
    let root = spans.iter().find(|span| span.name == "client");
    let root = root.context("the client has a span")?;
    let of_trace = |span: &&SpanData| span.span_context.trace_id() == root.span_context.trace_id();
    let mut trace: Vec<_> = spans.iter().filter(of_trace).collect();
    trace.sort_by_key(|span| span.start_time);
    for span in &trace {
        let depth = std::iter::successors(Some(*span), |span| {
            trace
                .iter()
                .find(|parent| parent.span_context.span_id() == span.parent_span_id)
                .copied()
        });
        let depth = depth.count() - 1;
        println!("{}{} ({:?})", "  ".repeat(depth), span.name, span.span_kind);
    }
    ensure!(trace.len() == 4, "{} spans", trace.len());
    let roots = trace
        .iter()
        .filter(|span| span.parent_span_id == SpanId::INVALID);
    ensure!(roots.count() == 1, "one root");
    let served = trace.iter().find(|span| span.span_kind == SpanKind::Server);
    let parent = served.map(|span| span.parent_span_id);
    let made = trace.iter().find(|span| span.span_kind == SpanKind::Client);
    ensure!(
        parent == made.map(|span| span.span_context.span_id()),
        "not its parent"
    );
    println!("✓ One trace spans the client, the gateway and the device");
    Ok(())
}
