//! Bar charts: the variants of one metric of one workload, compared with their baseline.

use maud::{Markup, html};

use super::class;
use crate::report::stats::Summary;
use crate::report::units;
use crate::report::view::{Line, Panel, Reading, Section, Standing};
use crate::results::Metric;

/// With more charts than this a workload takes the whole width of the page.
const FEW: usize = 2;

/// All charts of a workload.
pub(super) fn workload(section: &Section<'_>, workload: &str) -> Markup {
    let panels = section.panels.iter();
    let lines = panels.flat_map(|panel| panel.lines.iter().map(move |line| (panel, line)));
    let lines = lines.filter(|(_, line)| line.workload == workload);
    let charts: Vec<_> = lines.map(|(panel, line)| chart(panel, line)).collect();
    html! {
        // A few charts are stacked in a card beside other cards.
        article.wide[charts.len() > FEW] {
            h3 { (workload) }
            div.charts { @for chart in &charts { (chart) } }
        }
    }
}

fn chart(panel: &Panel<'_>, line: &Line<'_>) -> Markup {
    // Leave out variants that did not run this workload.
    let ran = |reading: &&Reading<'_>| reading.value.is_some() || reading.note.is_some();
    let readings: Vec<_> = line.readings.iter().filter(ran).collect();
    let scale = Scale::of(&readings);
    let better = match line.metric.more_is_better() {
        true => "more is better",
        false => "less is better",
    };
    html! {
        figure.bars {
            figcaption {
                b { (units::label(line.metric)) }
                " beside " (panel.base) ", " (better)
            }
            div.rows {
                @for reading in readings { (row(line.metric, reading, &scale)) }
            }
        }
    }
}

fn row(metric: Metric, reading: &Reading<'_>, scale: &Scale) -> Markup {
    let standing = match reading.standing(metric) {
        Standing::Better => "good",
        Standing::Worse => "bad",
        Standing::Even => "",
    };
    html! {
        div.row title=(in_words(metric, reading)) {
            span.name { (reading.variant) }
            span class={ "track " (class(reading.variant)) } { (track(reading, scale)) }
            @match (&reading.value, reading.note) {
                (Some(value), _) => {
                    span class={ "ratio " (standing) } { (ratio(reading, scale)) }
                    span.value { (units::value(metric, value.median)) }
                }
                (None, note) => span.note { (note.unwrap_or("–")) }
            }
        }
    }
}

/// The ratio. It is one for the baseline.
fn ratio(reading: &Reading<'_>, scale: &Scale) -> String {
    match (&reading.ratio, scale.one) {
        (Some(ratio), _) => units::ratio(ratio.median),
        (None, true) => "1".to_owned(),
        (None, false) => String::new(),
    }
}

fn track(reading: &Reading<'_>, scale: &Scale) -> Markup {
    let length = scale.length(reading);
    html! {
        @if let Some(length) = &length {
            span.bar style={ "width:" (scale.percent(length.median)) "%" } {}
        }
        @if scale.one {
            span.one style={ "left:" (scale.percent(1.0)) "%" } {}
        }
        @if let Some(spread) = length.filter(|length| length.rounds > 1 && length.low < length.high) {
            span.spread style={
                "left:" (scale.percent(spread.low)) "%;right:" (100.0 - scale.percent(spread.high)) "%"
            } {}
        }
    }
}

/// The text of the tooltip, with all values.
fn in_words(metric: Metric, reading: &Reading<'_>) -> String {
    let mut words = format!("{}, {}:", reading.variant, units::label(metric));
    if let Some(value) = &reading.value {
        let median = units::value(metric, value.median);
        let spread = units::value_spread(metric, value);
        words += &format!(" {median} ({spread}), {} rounds", value.rounds);
    }
    if let Some(ratio) = &reading.ratio {
        words += &format!("; ratio {}", units::ratio_with_spread(ratio));
    }
    if let Some(note) = reading.note {
        words += &format!(" {note}");
    }
    words
}

/// The scale of a chart's bars.
struct Scale {
    /// The value that fills the whole width.
    full: f64,
    /// Whether the bars are ratios to a baseline of 1. Otherwise they are values.
    one: bool,
}

impl Scale {
    fn of(readings: &[&Reading<'_>]) -> Self {
        let one = readings.iter().any(|reading| reading.ratio.is_some())
            || readings.len() == 1 && readings[0].value.is_some();
        let mut scale = Self { full: 1.0, one };
        let lengths = readings.iter().filter_map(|reading| scale.length(reading));
        // Cut off the spread of an outlier, so that it does not make all bars short.
        let longest = lengths
            .map(|l| l.high.min(l.median * 1.3))
            .fold(0.0, f64::max);
        scale.full = match one {
            true => longest.max(1.1),
            false if longest > 0.0 => longest,
            false => 1.0,
        };
        scale
    }

    fn length(&self, reading: &Reading<'_>) -> Option<Summary> {
        match (self.one, reading.ratio) {
            (true, None) => reading.value.map(|value| Summary {
                median: 1.0,
                low: 1.0,
                high: 1.0,
                rounds: value.rounds,
            }),
            (true, ratio) => ratio,
            (false, _) => reading.value,
        }
    }

    /// The width in percent, rounded to hundredths, which is finer than any screen.
    fn percent(&self, length: f64) -> f64 {
        let percent = (length / self.full * 100.0).clamp(0.0, 100.0);
        (percent * 100.0).round() / 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::stats::summary;

    fn reading(value: &[f64], ratio: &[f64]) -> Reading<'static> {
        Reading {
            variant: "forward tunnel",
            value: summary(value.iter().copied()),
            ratio: summary(ratio.iter().copied()),
            note: None,
        }
    }

    #[test]
    fn bars_are_ratios_and_the_baseline_is_one() {
        let (base, ours) = (reading(&[500.0], &[]), reading(&[1000.0], &[2.0]));
        let scale = Scale::of(&[&base, &ours]);
        assert!(scale.one);
        assert_eq!(
            scale.length(&base).map(|l| scale.percent(l.median)),
            Some(50.0)
        );
        assert_eq!(
            scale.length(&ours).map(|l| scale.percent(l.median)),
            Some(100.0)
        );
    }

    #[test]
    fn without_a_baseline_bars_are_values() {
        let (small, large) = (reading(&[50.0], &[]), reading(&[100.0], &[]));
        let scale = Scale::of(&[&small, &large]);
        assert!(!scale.one);
        assert_eq!(
            scale.length(&small).map(|l| scale.percent(l.median)),
            Some(50.0)
        );
    }

    #[test]
    fn one_round_far_off_does_not_make_all_bars_short() {
        let (base, ours) = (reading(&[1.0], &[]), reading(&[2.0], &[1.9, 2.0, 40.0]));
        let scale = Scale::of(&[&base, &ours]);
        assert_eq!(scale.full, 2.6);
        assert_eq!(scale.percent(40.0), 100.0);
    }
}
