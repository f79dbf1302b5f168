//! Small charts of the last five minutes.

use std::fmt::Write as _;
use std::time::Duration;

use maud::{Markup, html};

use crate::admin::human;
use crate::gateway::history::{Latency, SAMPLES, Sample};

/// The height of a chart, in units of its drawing. Its width is a unit for each sample.
const HEIGHT: f64 = 60.0;

/// A line of a chart.
struct Line {
    /// Empty if the chart has one line.
    name: &'static str,
    /// Oldest first. `None`: nothing was measured.
    values: Vec<Option<f64>>,
}

/// A chart whose values are written like this.
struct Chart {
    id: &'static str,
    title: &'static str,
    lines: Vec<Line>,
    write: fn(f64) -> String,
}

/// A number, with a decimal if it is small and no whole one.
fn number(value: f64) -> String {
    match value {
        value if value < 10.0 && value.fract() != 0.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

fn seconds(value: f64) -> String {
    match Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX) {
        short if short < Duration::from_secs(1) => human::round_trip(short),
        _ => format!("{} s", number(value)),
    }
}

/// The charts.
pub(super) fn charts(samples: &[Sample]) -> Markup {
    let line = |name, value: fn(&Sample) -> Option<f64>| Line {
        name,
        values: samples.iter().map(value).collect(),
    };
    let latency = |pick: fn(&Latency) -> Duration| {
        let value = move |sample: &Sample| sample.latency.as_ref().map(|l| pick(l).as_secs_f64());
        samples.iter().map(value).collect()
    };
    let charts = [
        Chart {
            id: "calls",
            title: "Calls per second",
            lines: vec![line("", |sample| Some(sample.calls))],
            write: number,
        },
        Chart {
            id: "bytes",
            title: "Bytes per second",
            lines: vec![line("", |sample| Some(sample.bytes))],
            write: |value| human::bytes(value as u64),
        },
        Chart {
            id: "in-flight",
            title: "Calls in flight",
            lines: vec![line("", |sample| Some(sample.in_flight))],
            write: number,
        },
        Chart {
            id: "latency",
            title: "Latency of calls",
            lines: vec![
                Line {
                    name: "p50",
                    values: latency(|latency| latency.p50),
                },
                Line {
                    name: "p99",
                    values: latency(|latency| latency.p99),
                },
            ],
            write: seconds,
        },
    ];
    html! {
        section.charts aria-label="The last five minutes" {
            @for chart in &charts { (chart.draw()) }
        }
    }
}

impl Chart {
    fn draw(&self) -> Markup {
        let values = self.lines.iter().flat_map(|line| &line.values);
        let most = values.flatten().copied().reduce(f64::max);
        let written = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), self.write);
        let now = |line: &Line| written(line.values.last().copied().flatten());
        let lines: Vec<_> = self
            .lines
            .iter()
            .map(|line| format!("{} {}", line.name, now(line)))
            .collect();
        let label = format!(
            "{} in the last five minutes: now {}, at most {}",
            self.title,
            lines.join(", ").trim(),
            written(most)
        );
        html! {
            figure data-key={ "chart-" (self.id) } {
                figcaption {
                    (self.title) " "
                    @for (number, line) in self.lines.iter().enumerate() {
                        span class={ "line-" (number) } { (line.name) " " b { (now(line)) } } " "
                    }
                    small { "at most " (written(most)) }
                }
                svg viewBox={ "0 -2 " (SAMPLES) " " (HEIGHT + 4.0) } preserveAspectRatio="none" role="img"
                    aria-label=(label) {
                    @for (number, line) in self.lines.iter().enumerate() {
                        path class={ "line-" (number) } d=(line.path(most.unwrap_or_default())) {}
                    }
                }
            }
        }
    }
}

impl Line {
    /// The line as a path that is interrupted where nothing was measured. The last sample is at the right.
    fn path(&self, most: f64) -> String {
        let mut path = String::new();
        let first = SAMPLES.saturating_sub(self.values.len());
        let mut is_drawing = false;
        for (x, value) in (first..).zip(&self.values) {
            let Some(value) = value else {
                is_drawing = false;
                continue;
            };
            let share = if most > 0.0 { value / most } else { 0.0 };
            let y = (HEIGHT * (1.0 - share)).round();
            // A line of no length is a dot. Cannot fail.
            let _ = match is_drawing {
                true => write!(path, "L{x} {y}"),
                false => write!(path, "M{x} {y}h0"),
            };
            is_drawing = true;
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_at_the_right_and_is_interrupted_where_nothing_was_measured() {
        let values = vec![Some(0.0), Some(2.0), None, Some(1.0)];
        let line = Line { name: "", values };
        assert_eq!(line.path(2.0), "M296 60h0L297 0M299 30h0");
    }

    #[test]
    fn a_chart_has_its_values_as_text() {
        let latency = Some(Latency {
            p50: Duration::from_micros(1500),
            p99: Duration::from_secs(2),
        });
        let first = Sample {
            calls: 40.0,
            ..Sample::default()
        };
        let last = Sample {
            calls: 2.5,
            latency,
            ..Sample::default()
        };
        let html = charts(&[first, last]).into_string();
        for label in [
            "Calls per second in the last five minutes: now 2.5, at most 40",
            "Latency of calls in the last five minutes: now p50 1.5 ms, p99 2 s, at most 2 s",
        ] {
            assert!(html.contains(label), "{label}: {html}");
        }
    }
}
