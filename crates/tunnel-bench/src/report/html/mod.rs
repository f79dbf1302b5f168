//! The HTML report of a run: a single page without scripts, fonts or network access.
//!
//! Invariant: all text of a run is escaped on the page; `maud` does that.

mod bars;
mod lines;
mod series;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::grid::{Grid, Text, Tone};
use super::{facts, verdicts, view};
use crate::results::Run;
use series::Series;

const STYLE: &str = include_str!("style.css");

pub(crate) fn page(run: &Run) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Tunnels beside plain tonic, " (facts::date(run)) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body(run)) }
        }
    };
    page.into_string()
}

fn body(run: &Run) -> Markup {
    let sections = view::sections(run);
    html! {
        header {
            h1 { "Tunnels beside plain tonic" }
            dl.facts {
                @for (name, value) in facts::of(run) {
                    div { dt { (name) } dd { (value) } }
                }
            }
            nav {
                a href="#targets" { "targets" }
                @for section in &sections {
                    a href={ "#" (id(section.name)) } { (section.name) }
                }
            }
        }
        main {
            (targets(run))
            p.legend { (LEGEND) }
            @for section in &sections { (of_section(run, section)) }
        }
    }
}

/// The legend of the charts.
const LEGEND: &str = "Bars are median ratios to the first variant of each chart, whose 1.0 is the \
dashed line; the thin line on a bar is the spread from the lowest to the highest round. Beside it \
stand the ratio, green where better and red where worse in every round, and the median itself. \
Ratios are formed within a round.";

fn targets(run: &Run) -> Markup {
    let verdicts = verdicts::of(run);
    html! {
        section #targets {
            h2 { "targets" }
            p { (verdicts.counts) }
            @for grid in &verdicts.grids { (table(grid)) }
        }
    }
}

fn of_section(run: &Run, section: &view::Section<'_>) -> Markup {
    let (grown, single) = series::split(run, section.name);
    html! {
        section id=(id(section.name)) {
            h2 { (section.name) }
            div.cards {
                @for series in &grown { (growth(series)) }
                @for workload in single { (bars::workload(section, workload)) }
            }
        }
    }
}

fn growth(series: &Series<'_>) -> Markup {
    html! {
        article {
            (lines::chart(series))
            details { summary { "numbers" } (table(&lines::numbers(series))) }
        }
    }
}

fn table(grid: &Grid) -> Markup {
    html! {
        div.table {
            table {
                thead {
                    tr { @for (i, head) in grid.head.iter().enumerate() { th.number[i >= grid.words] { (head) } } }
                }
                tbody {
                    @for row in &grid.rows {
                        tr { @for (i, text) in row.iter().enumerate() { (cell(text, i >= grid.words)) } }
                    }
                }
            }
        }
    }
}

fn cell(text: &Text, number: bool) -> Markup {
    let tone = match text.tone {
        Tone::Plain => "",
        Tone::Good => "good",
        Tone::Bad => "bad",
    };
    html! {
        td.number[number] {
            span class=(tone) { (text.main) }
            @if let Some(small) = &text.small { small { (small) } }
        }
    }
}

/// The name of a section as a URL fragment.
fn id(name: &str) -> String {
    let dashed = |c: char| if c.is_alphanumeric() { c } else { '-' };
    name.to_lowercase().chars().map(dashed).collect()
}

/// The CSS class of a variant, which gives it the same colour in every chart.
fn class(variant: &str) -> &'static str {
    match variant {
        "plain tonic" => "plain",
        "tuned tonic" => "tuned",
        "tonic over yamux" => "yamux",
        "http/2 in a stream" => "http2",
        "forward tunnel" => "forward",
        "forward inline" => "forward inline",
        "reverse tunnel" => "reverse",
        "reverse inline" => "reverse inline",
        "rust calls go" | "rust calls go reverse" => "rust-go",
        "go calls rust" | "go calls rust reverse" => "go-rust",
        name if name.contains("go") => "go",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{cell, hangs, row, run};
    use crate::results::Metric;

    fn sample() -> Run {
        let forward = cell("forward tunnel", &[2.0, 2.1, 2.2]);
        let cells = vec![cell("plain tonic", &[1.0; 3]), forward.clone()];
        let without = vec![hangs("plain tonic"), forward];
        let mut rows = vec![
            row("unary 16 B x 1", Metric::CallRate, cells.clone()),
            row("unary 16 B x 1", Metric::P99, cells.clone()),
            row("unread", Metric::CallRate, without),
        ];
        for streams in ["1", "10", "100"] {
            let name = format!("growth beside {streams} streams");
            rows.push(row(&name, Metric::CallRate, cells.clone()));
        }
        run(rows)
    }

    #[test]
    fn the_page_loads_nothing_from_the_network() {
        let page = page(&sample());
        for forbidden in ["<script", "http://", "https://", "url(", "@import", "src="] {
            assert!(!page.contains(forbidden), "{forbidden} is on the page");
        }
    }

    #[test]
    fn each_group_is_a_section_with_a_link_to_it() {
        let page = page(&sample());
        for group in ["unary", "unread", "growth"] {
            assert!(page.contains(&format!("<a href=\"#{group}\">")));
            assert!(page.contains(&format!("<section id=\"{group}\">")));
        }
    }

    #[test]
    fn text_of_a_run_is_escaped() {
        let mut run = sample();
        run.machine.cpu = "<em>\"cpu\"</em>".to_owned();
        run.rows[0].workload = "<img>".to_owned();
        let page = page(&run);
        assert!(page.contains("&lt;em&gt;") && page.contains("&lt;img&gt;"));
        assert!(!page.contains("<em>") && !page.contains("<img>"));
    }

    #[test]
    fn growth_is_a_line_chart_and_everything_else_is_bars() {
        let page = page(&sample());
        assert_eq!(page.matches("<figure class=\"lines\"").count(), 1);
        // Two metrics of one workload and one metric of another.
        assert_eq!(page.matches("<figure class=\"bars\"").count(), 3);
    }
}
