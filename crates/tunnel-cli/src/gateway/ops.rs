//! HTTP for machines that watch the gateway: `/metrics`, `/healthz` and `/readyz`.

use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use tokio::sync::watch;

/// The buckets of calls and round trips, in seconds. Without buckets the exporter makes summaries, which cannot be
/// added up over gateways.
const SHORT: [f64; 12] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0,
];

/// The buckets of what lasts long, in seconds.
const LONG: [f64; 9] = [
    1.0,
    10.0,
    60.0,
    600.0,
    3600.0,
    14_400.0,
    86_400.0,
    604_800.0,
    2_592_000.0,
];

/// How often samples are moved into the buckets. Until then they take memory.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// A recorder to install with `metrics::set_global_recorder`, before the handler is built, and a handle to it.
pub(crate) fn recorder() -> Result<(PrometheusRecorder, PrometheusHandle)> {
    let recorder = PrometheusBuilder::new()
        .set_buckets(&SHORT)?
        .set_buckets_for_metric(Matcher::Full("tunnel.duration".into()), &LONG)?
        .set_buckets_for_metric(Matcher::Full("tunnel.backoff".into()), &LONG)?
        .build_recorder();
    let handle = recorder.handle();
    Ok((recorder, handle))
}

/// Keeps the memory of a recorder small. To be spawned.
pub(crate) async fn upkeep(metrics: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP_INTERVAL).await;
        metrics.run_upkeep();
    }
}

/// The pages, for `axum::serve`.
pub(crate) fn router(metrics: PrometheusHandle, ready: watch::Receiver<bool>) -> Router {
    let page = move || async move {
        let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
        (kind, metrics.render())
    };
    let readyz = move || async move {
        match *ready.borrow() {
            true => (StatusCode::OK, "ready\n"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "unready\n"),
        }
    };
    Router::new()
        .route("/metrics", get(page))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(readyz))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    async fn page(router: &Router, path: &str) -> (u16, String) {
        let request = http::Request::get(path).body(Body::empty()).expect("legal");
        let response = router.clone().oneshot(request).await.expect("infallible");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body");
        let text = String::from_utf8(body.to_bytes().to_vec()).expect("text");
        (status, text)
    }

    #[tokio::test]
    async fn readiness_and_metrics_have_pages() {
        let (recorder, handle) = recorder().expect("legal");
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!("tunnel.round_trip").record(0.003);
            metrics::histogram!("tunnel.duration").record(90.0);
        });
        let (ready, now) = watch::channel(false);
        let router = router(handle, now);
        assert_eq!(page(&router, "/healthz").await, (200, "alive\n".into()));
        assert_eq!(page(&router, "/readyz").await, (503, "unready\n".into()));
        ready.send_replace(true);
        assert_eq!(page(&router, "/readyz").await, (200, "ready\n".into()));
        let (status, metrics) = page(&router, "/metrics").await;
        assert_eq!(status, 200);
        assert!(
            metrics.contains("tunnel_round_trip_bucket{le=\"0.005\"} 1"),
            "{metrics}"
        );
        assert!(
            metrics.contains("tunnel_duration_bucket{le=\"600\"} 1"),
            "{metrics}"
        );
    }
}
