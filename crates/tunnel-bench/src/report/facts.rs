//! Descriptions of a run: its machine, time and settings.

use crate::results::{Run, Settings};

/// The facts of a run, as pairs of name and value.
pub(crate) fn of(run: &Run) -> Vec<(&'static str, String)> {
    let machine = &run.machine;
    let mut facts = vec![
        ("machine", format!("{}, {}", cpu(run), machine.os)),
        ("compiler", machine.rustc.clone()),
        ("began", began(run)),
        ("rounds", rounds(&run.settings)),
    ];
    if let Some(commit) = &run.commit {
        facts.push(("commit", short(commit)));
    }
    facts.extend(run.settings.only.clone().map(|only| ("only", only)));
    facts
}

/// The processor, such as "Example CPU, 2 cores".
pub(crate) fn cpu(run: &Run) -> String {
    let cores = match run.machine.cores {
        1 => "1 core".to_owned(),
        cores => format!("{cores} cores"),
    };
    format!("{}, {cores}", run.machine.cpu)
}

/// The start of a run, to the minute.
pub(crate) fn began(run: &Run) -> String {
    let time = run.began.get(11..16).unwrap_or_default();
    format!("{} {time} UTC", date(run))
}

/// The day on which a run began.
pub(crate) fn date(run: &Run) -> &str {
    run.began.split('T').next().unwrap_or_default()
}

/// The first digits of a commit, with `-dirty` if files differed from it.
pub(crate) fn short(commit: &str) -> String {
    const DIGITS: usize = 10;
    let (hash, rest) = commit.split_once('-').unwrap_or((commit, ""));
    let hash: String = hash.chars().take(DIGITS).collect();
    match rest {
        "" => hash,
        rest => format!("{hash}-{rest}"),
    }
}

fn rounds(settings: &Settings) -> String {
    let quick = match settings.quick {
        true => " (quick: for a first look only)",
        false => "",
    };
    format!("{} of {} ms each{quick}", settings.rounds, settings.millis)
}

/// The legend of the tables.
pub(crate) const LEGEND: &str = "\
The baseline of each table shows the median of its values, every other variant the median
ratio to it, and the spread from the lowest to the highest round. Ratios are formed within
a round. More is better for rates, less for everything else.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_began_at_a_minute() {
        let mut run = crate::report::sample::run(Vec::new());
        run.began = "2026-01-02T03:04:05.678901234+00:00".to_owned();
        assert_eq!(began(&run), "2026-01-02 03:04 UTC");
    }

    #[test]
    fn a_commit_is_shortened_and_keeps_its_mark() {
        assert_eq!(short("0123456789abcdef-dirty"), "0123456789-dirty");
        assert_eq!(short("0123"), "0123");
    }
}
