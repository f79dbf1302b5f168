//! Log lines. A subscriber is application code, so it must not run under a tunnel's lock.

use std::fmt::{self, Write as _};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use tonic::Code;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tunnel_client::ForwardTunnel;
use tunnel_server::TunnelServiceHandler;

use crate::support::body::Pieces;
use crate::support::raw_service::{answers, raw_outcome, response};
use crate::support::{eventually, guarded};

/// If a subscriber waits longer than this, the logging thread is assumed to hold the lock.
const DEADLOCK: Duration = Duration::from_secs(30);

type Look = Arc<dyn Fn() + Send + Sync>;

/// A subscriber that calls into tunnels at each line and keeps the lines.
#[derive(Clone, Default)]
struct Lines {
    look: Option<Look>,
    lines: Arc<Mutex<Vec<String>>>,
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tunnel_")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        let (done, looked) = mpsc::channel();
        let look = self.look.clone();
        // The call runs on another thread, so a deadlock cannot hang this one.
        std::thread::spawn(move || {
            if let Some(look) = look {
                look();
            }
            let _ = done.send(());
        });
        if looked.recv_timeout(DEADLOCK).is_err() {
            line.0.push_str("UNDER THE LOCK");
        }
        self.lines.lock().expect("no panic").push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn a_subscriber_may_look_into_the_tunnel_at_every_line() {
    guarded(async {
        let service = answers(|_| async {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            // The value exceeds the metadata limit, so the metadata is dropped and logged.
            let long = "x".repeat(100_000).parse().expect("legal");
            trailers.insert("long", long);
            response(Pieces::all(vec![Ok(Frame::trailers(trailers))]))
        });
        // Without a connection both ends log on this thread.
        let handler = TunnelServiceHandler::builder().add_service(service).build();
        let tunnel = ForwardTunnel::new(handler.service()).open().await;
        let tunnel = tunnel.expect("accepted");
        let (near, far) = (tunnel.clone(), handler.clone());
        let lines = Lines {
            look: Some(Arc::new(move || _ = (near.stats(), far.stats()))),
            ..Lines::default()
        };
        let logging = tracing::subscriber::set_default(lines.clone());
        let (_, status) = raw_outcome(&tunnel, Pieces::all(Vec::new())).await;
        assert_eq!(status.code(), Code::Ok);
        tunnel.close().await;
        eventually(|| handler.tunnels().is_empty()).await;
        drop(logging);
        let lines = lines.lines.lock().expect("no panic").join("\n");
        for said in ["trailers of", "tunnel ended"] {
            assert!(lines.contains(said), "{lines}");
        }
        assert!(!lines.contains("UNDER THE LOCK"), "{lines}");
    })
    .await;
}
