//! Formats numbers with three significant digits and a unit prefix.

use super::stats::Summary;
use crate::results::Metric;

/// The name of a metric in a report.
pub(crate) fn label(metric: Metric) -> &'static str {
    match metric {
        Metric::CallRate => "calls",
        Metric::MessageRate => "messages",
        Metric::ByteRate => "payload",
        Metric::OpenRate => "opened",
        Metric::TimeoutRate => "timeouts",
        Metric::OtherFailures => "other failures",
        Metric::P50 => "p50",
        Metric::P99 => "p99",
        Metric::P999 => "p99.9",
        Metric::CpuPerCall => "CPU per call",
        Metric::CpuPerByte => "CPU per byte",
        Metric::MemoryPerStream => "memory per stream",
        Metric::Ramp => "ramp",
    }
}

/// A value in a metric's unit.
pub(crate) fn value(metric: Metric, value: f64) -> String {
    let unit = match metric {
        Metric::CallRate | Metric::MessageRate | Metric::OpenRate | Metric::TimeoutRate => "/s",
        Metric::OtherFailures => "",
        Metric::ByteRate => "B/s",
        Metric::MemoryPerStream => "B",
        Metric::P50
        | Metric::P99
        | Metric::P999
        | Metric::CpuPerCall
        | Metric::CpuPerByte
        | Metric::Ramp => "s",
    };
    let (number, prefix) = scaled(value);
    let text = format!("{} {prefix}{unit}", digits(number));
    text.trim_end().to_owned()
}

/// A ratio, such as "2.05".
pub(crate) fn ratio(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        v if v.abs() >= 100.0 => format!("{v:.0}"),
        v if v.abs() >= 10.0 => format!("{v:.1}"),
        v if v.abs() >= 0.095 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}

/// A spread of ratios, such as "1.95–2.11".
pub(crate) fn ratio_spread(spread: &Summary) -> String {
    format!("{}–{}", ratio(spread.low), ratio(spread.high))
}

/// A ratio and its spread, such as "2.05 (1.95–2.11)".
pub(crate) fn ratio_with_spread(summary: &Summary) -> String {
    format!("{} ({})", ratio(summary.median), ratio_spread(summary))
}

/// A spread of values in a metric's unit.
pub(crate) fn value_spread(metric: Metric, spread: &Summary) -> String {
    format!(
        "{}–{}",
        value(metric, spread.low),
        value(metric, spread.high)
    )
}

/// The difference of a ratio from one, such as "+3 %".
pub(crate) fn change(ratio: f64) -> String {
    let percent = (ratio - 1.0) * 100.0;
    match percent {
        p if p.abs() < 0.5 => "±0 %".to_owned(),
        p if p < 0.0 => format!("−{:.0} %", -p),
        p => format!("+{p:.0} %"),
    }
}

/// Scales a number to between 1 and 1000, if there is a prefix for it, and returns the prefix.
fn scaled(value: f64) -> (f64, &'static str) {
    const PREFIXES: [(f64, &str); 7] = [
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
        (1.0, ""),
        (1e-3, "m"),
        (1e-6, "µ"),
    ];
    if value == 0.0 {
        return (0.0, "");
    }
    // A number that rounds up to 1000 belongs to the next prefix.
    let fits = |scale: f64| value.abs() >= scale * 0.9995;
    let found = PREFIXES.into_iter().find(|(scale, _)| fits(*scale));
    let (scale, prefix) = found.unwrap_or((1e-9, "n"));
    (value / scale, prefix)
}

/// Formats a number with three significant digits.
fn digits(number: f64) -> String {
    match number.abs() {
        n if n >= 99.95 => format!("{number:.0}"),
        n if n >= 9.995 => format!("{number:.1}"),
        0.0 => "0".to_owned(),
        _ => format!("{number:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_three_digits_and_the_unit_of_their_metric() {
        assert_eq!(value(Metric::CallRate, 65_123.0), "65.1 k/s");
        assert_eq!(value(Metric::ByteRate, 2.214e9), "2.21 GB/s");
        assert_eq!(value(Metric::P99, 0.000_123_4), "123 µs");
        assert_eq!(value(Metric::P50, 0.01), "10.0 ms");
        assert_eq!(value(Metric::CpuPerByte, 3.2e-10), "0.32 ns");
        assert_eq!(value(Metric::MemoryPerStream, 20_700.0), "20.7 kB");
        assert_eq!(value(Metric::Ramp, 0.0), "0 s");
        assert_eq!(value(Metric::OtherFailures, 0.0), "0");
    }

    #[test]
    fn what_rounds_up_to_a_thousand_takes_the_next_prefix() {
        assert_eq!(value(Metric::CallRate, 999_900.0), "1.00 M/s");
        assert_eq!(value(Metric::CallRate, 999.0), "999 /s");
    }

    #[test]
    fn changes_are_in_whole_percent() {
        assert_eq!(change(1.034), "+3 %");
        assert_eq!(change(0.9), "−10 %");
        assert_eq!(change(1.001), "±0 %");
    }
}
