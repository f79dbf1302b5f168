//! Log lines. A subscriber is application code, so it must not run under a tunnel's lock.

use std::convert::Infallible;
use std::fmt::{self, Write as _};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
use tonic::Status;
use tower::service_fn;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tunnel_conformance::client::run;
use tunnel_conformance::payload::request;
use tunnel_conformance::proto::Script;
use tunnel_conformance::testing::{eventually, guarded};
use tunnel_conformance::{Kind, Probe};
use tunnel_server::TunnelServiceHandler;

use crate::Ends;

/// If a subscriber waits longer than this, the logging thread is assumed to hold the lock.
const DEADLOCK: Duration = Duration::from_secs(30);

type Look = Arc<dyn Fn() + Send + Sync>;

/// A subscriber that calls into tunnels at each line and keeps the lines.
#[derive(Clone, Default)]
struct Lines {
    look: Arc<OnceLock<Look>>,
    lines: Arc<Mutex<Vec<String>>>,
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl Lines {
    /// Calls into the tunnels, and keeps the line.
    fn keep(&self, mut line: Line) {
        let (done, looked) = mpsc::channel();
        let look = self.look.clone();
        // The call runs on another thread, so a deadlock cannot hang this one.
        std::thread::spawn(move || {
            if let Some(look) = look.get() {
                look();
            }
            let _ = done.send(());
        });
        if looked.recv_timeout(DEADLOCK).is_err() {
            line.0.push_str("UNDER THE LOCK");
        }
        self.lines.lock().expect("no panic").push(line.0);
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tunnel_")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line = Line(String::new());
        span.record(&mut line);
        self.keep(line);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, fields: &Record<'_>) {
        let mut line = Line(String::new());
        fields.record(&mut line);
        self.keep(line);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.keep(line);
    }

    fn enter(&self, _: &Id) {
        self.keep(Line(String::new()));
    }

    fn exit(&self, _: &Id) {
        self.keep(Line(String::new()));
    }

    fn try_close(&self, _: Id) -> bool {
        self.keep(Line("span closed".into()));
        true
    }
}

#[tokio::test]
async fn a_subscriber_may_look_into_the_tunnel_at_every_line() {
    guarded(async {
        let lines = Lines::default();
        let logging = tracing::subscriber::set_default(lines.clone());
        // Both ends log on this thread. The trailers exceed the metadata limit, so they are dropped.
        let service = service_fn(|_| async {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            trailers.insert("long", "x".repeat(100_000).parse().expect("legal"));
            let trailers = Ok::<_, Status>(Frame::trailers(trailers));
            let body = StreamBody::new(futures::stream::iter([trailers]));
            Ok::<_, Infallible>(http::Response::new(body))
        });
        let handler = TunnelServiceHandler::builder().fallback(service).build();
        let Ends {
            handler,
            tunnel,
            client,
            ..
        } = Ends::over(handler, Probe::default()).await;
        let (near, far) = (tunnel.clone(), handler.clone());
        let look: Look = Arc::new(move || _ = (near.stats(), far.stats()));
        assert!(lines.look.set(look).is_ok());
        let (kind, script) = (Kind::ServerStream, Script::named("any"));
        let outcome = run(&client, kind, &script, vec![request(1, 10)]).await;
        assert!(outcome.expect_success().is_empty());
        tunnel.close().await;
        eventually(|| handler.tunnels().is_empty()).await;
        drop(logging);
        let lines = lines.lines.lock().expect("no panic").join("\n");
        for said in [
            "trailers of",
            "tunnel closed",
            "call finished",
            "span closed",
        ] {
            assert!(lines.contains(said), "{lines}");
        }
        assert!(!lines.contains("UNDER THE LOCK"), "{lines}");
    })
    .await;
}
