//! The telemetry of the observed variants. Lines go nowhere: an exporter is not measured.

use anyhow::{Context, Result};
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
    if telemetry == Telemetry::Metrics {
        let recorder = PrometheusBuilder::new().set_buckets(&[0.001, 0.01, 0.1, 1.0]);
        let recorder = recorder.and_then(PrometheusBuilder::install_recorder);
        recorder.context("cannot record metrics")?;
    }
    Ok(())
}
