//! The telemetry of the observed variants. Lines go nowhere: an exporter is not measured.

#[cfg(feature = "metrics")]
use anyhow::Context;
use anyhow::Result;
#[cfg(feature = "metrics")]
use metrics_exporter_prometheus::PrometheusBuilder;
use tracing_subscriber::filter::LevelFilter;

use crate::variant::{Telemetry, Way};

/// Switches on what a variant has.
pub(super) fn start(variant: Way) -> Result<()> {
    let Way::Observed(telemetry) = variant else {
        return Ok(());
    };
    let level = match telemetry {
        Telemetry::Metrics => LevelFilter::INFO,
        Telemetry::Spans => LevelFilter::DEBUG,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::sink)
        .init();
    match telemetry {
        Telemetry::Metrics => record_metrics(),
        Telemetry::Spans => Ok(()),
    }
}

#[cfg(feature = "metrics")]
fn record_metrics() -> Result<()> {
    let recorder = PrometheusBuilder::new().set_buckets(&[0.001, 0.01, 0.1, 1.0]);
    let recorder = recorder.and_then(PrometheusBuilder::install_recorder);
    recorder.context("cannot record metrics").map(|_| ())
}

#[cfg(not(feature = "metrics"))]
fn record_metrics() -> Result<()> {
    anyhow::bail!("this variant needs the feature metrics")
}
