//! Line charts: how a metric of each variant grows, over a logarithmic axis.

use maud::{Markup, html};

use super::class;
use super::series::Series;
use crate::report::grid::{Grid, Text, Tone};
use crate::report::stats;
use crate::report::units;
use crate::report::view::distinct;
use crate::results::{Cell, Metric};

/// The size of the drawing, in its own units. The page scales it to the width of the screen.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = WIDTH - 14.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = HEIGHT - 26.0;

/// The value axis is logarithmic if the ratio of highest to lowest value is greater than this.
const LINEAR_UP_TO: f64 = 40.0;

pub(super) fn chart(series: &Series<'_>) -> Markup {
    let axes = Axes::of(series);
    let variants = variants(series);
    let better = match series.metric.more_is_better() {
        true => "more is better",
        false => "less is better",
    };
    let label = units::label(series.metric);
    html! {
        h3 { (series.name) }
        figure.lines {
            figcaption { b { (label) } ", " (better) }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label={ (series.name) ", " (label) } {
                (axes.draw(series))
                @for variant in &variants { (line(series, variant, &axes)) }
            }
            ul.variants {
                @for variant in &variants {
                    li class=(class(variant)) { (key()) (variant) }
                }
            }
        }
    }
}

/// A short piece of a variant's line, for the legend.
fn key() -> Markup {
    html! { svg.key viewBox="0 0 22 8" aria-hidden="true" { path.line d="M0 4H22" {} } }
}

/// The values of the chart as a table.
pub(super) fn numbers(series: &Series<'_>) -> Grid {
    let counts = series.points.iter().map(|(number, _)| count(*number));
    let mut grid = Grid::new(1, std::iter::once("N".to_owned()).chain(counts));
    for variant in variants(series) {
        let mut cells = vec![Text::new(variant)];
        let of_rows = series.points.iter();
        cells.extend(of_rows.map(|(_, row)| number(series.metric, row.cell(variant))));
        grid.rows.push(cells);
    }
    grid
}

fn number(metric: Metric, cell: Option<&Cell>) -> Text {
    match (
        cell.and_then(median),
        cell.and_then(|cell| cell.note.as_ref()),
    ) {
        (Some(value), _) => Text::new(units::value(metric, value)),
        (None, Some(note)) => Text::new(note).tone(Tone::Bad),
        (None, None) => Text::new("–"),
    }
}

fn variants<'a>(series: &Series<'a>) -> Vec<&'a str> {
    let cells = series.points.iter().flat_map(|(_, row)| &row.cells);
    distinct(cells.map(|cell| cell.variant.as_str()))
}

fn median(cell: &Cell) -> Option<f64> {
    stats::value(cell).map(|value| value.median)
}

fn line(series: &Series<'_>, variant: &str, axes: &Axes) -> Markup {
    let points = series.points.iter().filter_map(|(number, row)| {
        let value = median(row.cell(variant)?)?;
        Some((*number, value))
    });
    let points: Vec<_> = points.collect();
    let place =
        |(number, value): &(f64, f64)| format!("{:.1} {:.1}", axes.x(*number), axes.y(*value));
    let path = points.iter().map(place).collect::<Vec<_>>().join("L");
    html! {
        g class=(class(variant)) {
            @if !points.is_empty() { path.line d={ "M" (path) } {} }
            @for (number, value) in &points {
                circle cx=(format!("{:.1}", axes.x(*number))) cy=(format!("{:.1}", axes.y(*value))) r="3" {
                    title { (variant) " at " (number) ": " (units::value(series.metric, *value)) }
                }
            }
        }
    }
}

/// The axes: they map numbers and values to positions in the drawing.
struct Axes {
    /// The logarithms of the first and the last number.
    numbers: (f64, f64),
    /// The lowest and the highest value, or their logarithms.
    values: (f64, f64),
    logarithmic: bool,
    ticks: Vec<f64>,
}

impl Axes {
    fn of(series: &Series<'_>) -> Self {
        let cells = series.points.iter().flat_map(|(_, row)| &row.cells);
        let values = cells.filter_map(median);
        let values: Vec<_> = values.filter(|value| *value > 0.0).collect();
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(0.0, f64::max);
        let numbers = series
            .points
            .iter()
            .map(|(number, _)| number.max(1.0).log10());
        let first = numbers.clone().fold(f64::INFINITY, f64::min);
        let last = numbers.fold(0.0, f64::max);
        let logarithmic = high / low > LINEAR_UP_TO;
        let ticks = match (values.is_empty(), logarithmic) {
            (true, _) => vec![0.0, 1.0],
            (false, true) => powers(low, high),
            (false, false) => steps(high),
        };
        let end = |tick: Option<&f64>| {
            let tick = tick.copied().unwrap_or_default();
            if logarithmic { tick.log10() } else { tick }
        };
        Self {
            numbers: (first, last),
            values: (end(ticks.first()), end(ticks.last())),
            logarithmic,
            ticks,
        }
    }

    fn x(&self, number: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * part(number.max(1.0).log10(), self.numbers)
    }

    fn y(&self, value: f64) -> f64 {
        let value = if self.logarithmic {
            value.log10()
        } else {
            value
        };
        BOTTOM - (BOTTOM - TOP) * part(value, self.values)
    }

    fn draw(&self, series: &Series<'_>) -> Markup {
        html! {
            @for tick in &self.ticks {
                @let y = format!("{:.1}", self.y(*tick));
                path.grid d={ "M" (LEFT) " " (y) "H" (RIGHT) } {}
                text x=(LEFT - 6.0) y=(y) dy="0.32em" text-anchor="end" { (tick_text(series.metric, *tick)) }
            }
            @for (number, _) in &series.points {
                @let x = format!("{:.1}", self.x(*number));
                path.tick d={ "M" (x) " " (BOTTOM) "v4" } {}
                text x=(x) y=(BOTTOM + 17.0) text-anchor="middle" { (count(*number)) }
            }
        }
    }
}

/// The position of a value between the first and the last, from 0 to 1.
fn part(value: f64, (first, last): (f64, f64)) -> f64 {
    match last > first {
        true => ((value - first) / (last - first)).clamp(0.0, 1.0),
        false => 0.5,
    }
}

/// Round tick values from zero to the first that is not below `high`.
fn steps(high: f64) -> Vec<f64> {
    const STEPS: f64 = 4.0;
    let rough = high / STEPS;
    let power = 10_f64.powf(rough.log10().floor());
    let round = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|n| n * power);
    let step = round.into_iter().find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(rough);
    let mut ticks = vec![0.0];
    let mut n = 1.0;
    while ticks[ticks.len() - 1] < high {
        ticks.push(n * step);
        n += 1.0;
    }
    ticks
}

/// The powers of ten around the values.
fn powers(low: f64, high: f64) -> Vec<f64> {
    let (mut power, last) = (low.log10().floor(), high.log10().ceil());
    let mut ticks = Vec::new();
    while power <= last {
        ticks.push(10_f64.powf(power));
        power += 1.0;
    }
    ticks
}

/// The label of a tick, without trailing zeros.
fn tick_text(metric: Metric, value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let text = units::value(metric, value);
    let (number, unit) = text.split_once(' ').unwrap_or((&text, ""));
    let number = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    };
    format!("{number} {unit}")
}

/// A number of streams or tunnels, in short form.
fn count(number: f64) -> String {
    match number {
        n if n >= 1e6 => format!("{} M", n / 1e6),
        n if n >= 1e3 => format!("{} k", n / 1e3),
        n => n.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{cell, hangs, row};

    #[test]
    fn ticks_are_round_and_reach_beyond_the_highest_value() {
        assert_eq!(steps(93.0), [0.0, 25.0, 50.0, 75.0, 100.0]);
        assert_eq!(steps(8.0), [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(powers(0.5, 200.0), [0.1, 1.0, 10.0, 100.0, 1000.0]);
    }

    #[test]
    fn each_step_of_ten_is_as_wide_as_the_next() {
        let rows = [1.0, 10.0, 100.0].map(|n| {
            let cells = vec![cell("plain tonic", &[n]), hangs("forward tunnel")];
            (n, row("growth", Metric::CallRate, cells))
        });
        let series = Series {
            name: "growth".to_owned(),
            metric: Metric::CallRate,
            points: rows.iter().map(|(n, row)| (*n, row)).collect(),
        };
        let axes = Axes::of(&series);
        assert_eq!(axes.x(1.0), LEFT);
        assert_eq!(axes.x(10.0), f64::midpoint(LEFT, RIGHT));
        assert_eq!(axes.x(100.0), RIGHT);
        // The range from 1 to 100 is too wide for a linear axis.
        assert_eq!(axes.y(10.0), f64::midpoint(TOP, BOTTOM));
        assert_eq!(numbers(&series).rows[1][1].main, "hangs");
    }

    #[test]
    fn a_tick_has_no_zeros_behind_the_point() {
        assert_eq!(tick_text(Metric::CallRate, 25_000.0), "25 k/s");
        assert_eq!(tick_text(Metric::P99, 0.000_25), "250 µs");
        assert_eq!(tick_text(Metric::P99, 0.0025), "2.5 ms");
    }
}
