//! The table that is printed.

use crate::figures::Figures;
use crate::support::scenario::{Scenario, all};

fn name_width() -> usize {
    all().map(|s| s.name.len()).max().unwrap_or_default()
}

pub(crate) fn print_head() {
    let name = "scenario";
    println!(
        "{name:<width$}  {:<8} {:>12} {:>8} {:>12} {:>8} {:>16}",
        "for each",
        "instructions",
        "change",
        "allocations",
        "change",
        "bytes allocated",
        width = name_width(),
    );
}

pub(crate) fn print_row(scenario: &Scenario, figures: &Figures, before: Option<&Figures>) {
    let instructions = match figures.instructions {
        Some(n) => format!("{n:.0}"),
        None => "-".to_owned(),
    };
    let was = before.and_then(|b| b.instructions);
    let change = match (figures.instructions, was) {
        (Some(now), Some(was)) if was > 0.0 => format!("{:+.1} %", (now / was - 1.0) * 100.0),
        _ => String::new(),
    };
    let fewer = match before {
        Some(before) => format!("{:+.2}", figures.allocations - before.allocations),
        None => String::new(),
    };
    println!(
        "{:<width$}  {:<8} {instructions:>12} {change:>8} {:>12.2} {fewer:>8} {:>16.0}",
        scenario.name,
        scenario.unit,
        figures.allocations,
        figures.bytes,
        width = name_width(),
    );
}
