//! The report: a summary for the terminal, and an HTML page with charts.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use maud::{DOCTYPE, Markup, html};

use super::sample::Sample;
use super::{Args, Verdict};

/// The size of a chart, in its own units.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 160.0;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;\
    padding:0 1rem;color:#222}svg{width:100%;background:#f6f7f8}path{fill:none;stroke:#2463b4;\
    stroke-width:1.5}line{stroke:#c33;stroke-opacity:.35}td,th{text-align:left;padding:0 1rem 0 0;\
    vertical-align:top}.bad{color:#b00}";

/// The summary for the terminal.
pub(crate) fn summary(verdict: &Verdict) -> String {
    let (before, after) = &verdict.calm;
    let mut lines = vec![
        verdict.calls.line(),
        format!("{} faults", verdict.faults.len()),
        format!("before: {}", held(before)),
        format!("after:  {}", held(after)),
    ];
    for (why, count) in &verdict.calls.failed {
        lines.push(format!("{count} failed during a fault: {why}"));
    }
    match verdict.wrong.is_empty() {
        true => {
            lines.push("✓ no call was lost, doubled or left hanging, and nothing leaked".into())
        }
        false => lines.extend(verdict.wrong.iter().map(|wrong| format!("✗ {wrong}"))),
    }
    lines.join("\n")
}

fn held(sample: &Sample) -> String {
    let megabytes = |bytes: usize| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    format!(
        "{} allocated, {} resident, {} tasks, {} descriptors",
        megabytes(sample.allocated),
        sample.resident.map_or("?".to_owned(), megabytes),
        sample.tasks,
        sample
            .descriptors
            .map_or("?".to_owned(), |count| count.to_string())
    )
}

/// Writes the page to `target/soak`.
pub(crate) fn write(args: &Args, verdict: &Verdict) -> Result<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let directory = target.join("soak");
    fs::create_dir_all(&directory).context("cannot create the directory of the report")?;
    let file = directory.join("report.html");
    fs::write(&file, page(args, verdict).into_string()).context("cannot write the report")?;
    Ok(file)
}

fn page(args: &Args, verdict: &Verdict) -> Markup {
    let mebibytes = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; title { "Soak" } style { (STYLE) } }
            body {
                h1 { "Soak: " (args.minutes) " minutes of faults, seed " (args.seed) }
                p { (chrono::Local::now().format("%Y-%m-%d %H:%M")) }
                @for line in summary(verdict).lines() {
                    p class=[line.starts_with('✗').then_some("bad")] { (line) }
                }
                p { "A red line is the beginning of a fault." }
                (chart(verdict, "allocated, MiB", |s| Some(mebibytes(s.allocated))))
                (chart(verdict, "resident, MiB", |s| s.resident.map(mebibytes)))
                (chart(verdict, "tasks of the runtime", |s| Some(s.tasks as f64)))
                (chart(verdict, "descriptors", |s| s.descriptors.map(|count| count as f64)))
                h2 { "Faults" }
                table {
                    @for (at, fault) in &verdict.faults {
                        tr { td { (format!("{at:.1} s")) } td { (fault) } }
                    }
                }
            }
        }
    }
}

fn chart(verdict: &Verdict, name: &str, value: impl Fn(&Sample) -> Option<f64>) -> Markup {
    let samples = verdict.samples.iter();
    let points: Vec<_> = samples.filter_map(|s| Some((s.at, value(s)?))).collect();
    let end = points.last().map_or(1.0, |(at, _)| at.max(1.0));
    let most = points.iter().map(|(_, value)| *value).fold(1.0, f64::max);
    let x = |at: f64| format!("{:.1}", at / end * WIDTH);
    let y = |value: f64| format!("{:.1}", HEIGHT - value / most * (HEIGHT - 10.0));
    let path: Vec<_> = points
        .iter()
        .map(|(at, v)| format!("{} {}", x(*at), y(*v)))
        .collect();
    html! {
        h2 { (name) ", up to " (format!("{most:.1}")) }
        svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(name) {
            @for (at, fault) in &verdict.faults {
                line x1=(x(*at)) x2=(x(*at)) y1="0" y2=(HEIGHT) { title { (fault) } }
            }
            @if !path.is_empty() { path d={ "M" (path.join("L")) } {} }
        }
    }
}
