//! Series of workloads whose names differ in one number only, to show growth.

use std::collections::HashMap;

use crate::report::view::distinct;
use crate::results::{Metric, Row, Run};

/// One metric of workloads whose names differ in one number.
pub(crate) struct Series<'a> {
    /// The common name, with "N" for the number.
    pub(crate) name: String,
    pub(crate) metric: Metric,
    /// The numbers and their rows, in ascending order.
    pub(crate) points: Vec<(f64, &'a Row)>,
}

/// The minimum number of points of a line.
const FEWEST_POINTS: usize = 3;

/// Splits a group into series and the workloads that belong to none. Only groups about growth have
/// series.
pub(super) fn split<'a>(run: &'a Run, group: &str) -> (Vec<Series<'a>>, Vec<&'a str>) {
    let rows: Vec<_> = run.rows.iter().filter(|row| row.group == group).collect();
    let workloads = distinct(rows.iter().map(|row| row.workload.as_str()));
    let names = match group.to_lowercase().contains("grow") {
        true => names(&workloads),
        false => HashMap::new(),
    };
    let mut series: Vec<Series<'_>> = Vec::new();
    for row in rows {
        let Some((name, number)) = names.get(row.workload.as_str()) else {
            continue;
        };
        let mut known = series.iter_mut();
        match known.find(|s| s.name == *name && s.metric == row.metric) {
            Some(known) => known.points.push((*number, row)),
            None => series.push(Series {
                name: name.clone(),
                metric: row.metric,
                points: vec![(*number, row)],
            }),
        }
    }
    for series in &mut series {
        series.points.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    }
    let single = workloads.into_iter().filter(|w| !names.contains_key(w));
    (series, single.collect())
}

/// The series name and the number of each workload that is part of a series.
///
/// If a name has several numbers, the growing one is the one for which more workloads share the
/// rest of the name. Example: "unary 16 B x 16 beside 10 idle streams" with "N" for 10 is also the
/// name of the workloads beside 1 and 100 streams; with "N" for a 16 it is shared with none.
fn names<'a>(workloads: &[&'a str]) -> HashMap<&'a str, (String, f64)> {
    let mut sizes: HashMap<String, usize> = HashMap::new();
    for (name, _) in workloads.iter().flat_map(|workload| candidates(workload)) {
        *sizes.entry(name).or_default() += 1;
    }
    let best = |workload: &&'a str| {
        let found = candidates(workload).max_by_key(|(name, _)| sizes[name])?;
        (sizes[&found.0] >= FEWEST_POINTS).then_some((*workload, found))
    };
    workloads.iter().filter_map(best).collect()
}

/// A workload's name with "N" for each of its numbers in turn, and that number.
fn candidates(workload: &str) -> impl Iterator<Item = (String, f64)> {
    let words: Vec<_> = workload.split(' ').collect();
    (0..words.len()).filter_map(move |i| {
        let number = words[i].parse().ok()?;
        let mut words = words.clone();
        words[i] = "N";
        Some((words.join(" "), number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{row, run};

    fn growth(names: &[&str]) -> Run {
        let rows = names.iter().map(|name| {
            let mut row = row(name, Metric::CallRate, Vec::new());
            row.group = "growth".to_owned();
            row
        });
        run(rows.collect())
    }

    #[test]
    fn workloads_that_differ_in_one_number_are_a_series_from_the_smallest() {
        let run = growth(&[
            "16 B beside 100 idle",
            "16 B beside 1 idle",
            "16 B beside 10 idle",
        ]);
        let (series, single) = split(&run, "growth");
        assert!(single.is_empty());
        assert_eq!(series.len(), 1);
        assert_eq!(series[0].name, "16 B beside N idle");
        let numbers: Vec<_> = series[0].points.iter().map(|(n, _)| *n).collect();
        assert_eq!(numbers, [1.0, 10.0, 100.0]);
    }

    #[test]
    fn too_few_workloads_with_a_common_name_are_no_series() {
        let run = growth(&["16 B over 1 tunnels", "16 B over 10 tunnels"]);
        let (series, single) = split(&run, "growth");
        assert!(series.is_empty());
        assert_eq!(single, ["16 B over 1 tunnels", "16 B over 10 tunnels"]);
    }

    #[test]
    fn other_groups_have_no_series() {
        let run = growth(&["unary x 1", "unary x 2", "unary x 3"]);
        let mut run = run;
        for row in &mut run.rows {
            row.group = "unary".to_owned();
        }
        assert!(split(&run, "unary").0.is_empty());
    }
}
