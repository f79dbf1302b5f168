//! The results of all calls.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, bail, ensure};

/// The result of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) fate: Fate,
    /// How many tunnels did not take it.
    pub(crate) moves: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The device that was called has answered.
    Answered(String),
    /// Its tunnel was lost after the call was sent. The call may have been processed, so
    /// only the application can decide whether to retry.
    Lost(String),
    /// The call failed in another way.
    Failed(String),
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(device) => write!(f, "answered by {device}"),
            Self::Lost(why) => write!(f, "lost: {why}"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

/// The note on calls that were lost in phases that allow it.
const LOST: &str = "sent, and lost with the tunnel: may have been processed, or not";

/// The count of one phase's calls.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    name: &'static str,
    made: usize,
    answered: usize,
    moved: usize,
    /// How many were lost and may be.
    lost: usize,
    /// How many failed in another way, by reason.
    failed: BTreeMap<String, usize>,
}

impl Tally {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            made: 0,
            answered: 0,
            moved: 0,
            lost: 0,
            failed: BTreeMap::new(),
        }
    }

    /// Counts a call. `excused` means that it may be lost, because something was killed.
    pub(crate) fn count(&mut self, outcome: &Outcome, excused: bool) {
        self.made += 1;
        self.moved += usize::from(outcome.moves > 0);
        match &outcome.fate {
            Fate::Answered(_) => self.answered += 1,
            Fate::Lost(_) if excused => self.lost += 1,
            Fate::Lost(why) | Fate::Failed(why) => {
                *self.failed.entry(why.clone()).or_default() += 1;
            }
        }
    }

    /// Checks that the phase went as it must.
    pub(crate) fn verdict(&self) -> Result<()> {
        let name = self.name;
        if let Some((why, count)) = self.failed.first_key_value() {
            bail!("{name}: {count} calls failed that must not: {why}");
        }
        ensure!(self.made > 0, "{name}: no call was made");
        Ok(())
    }

    fn row(&self) -> String {
        let failed = self.lost + self.failed.values().sum::<usize>();
        let numbers = [self.made, self.answered, self.moved, failed];
        row(self.name, numbers.map(|n| n.to_string()))
    }

    /// One line for each reason of failed calls.
    fn reasons(&self) -> impl Iterator<Item = String> {
        let lost = (self.lost > 0).then_some((LOST, self.lost));
        let failed = self
            .failed
            .iter()
            .map(|(why, count)| (why.as_str(), *count));
        let reasons = lost.into_iter().chain(failed);
        reasons.map(|(why, count)| format!("{}: {count} failed: {why}", self.name))
    }
}

/// The lines of a table with a row for each phase, and the reasons below it.
pub(crate) fn table(tallies: &[Tally]) -> Vec<String> {
    let columns = ["calls made", "answered", "moved", "failed"];
    let mut lines = vec![row("", columns.map(str::to_owned))];
    lines.extend(tallies.iter().map(Tally::row));
    lines.extend(tallies.iter().flat_map(Tally::reasons));
    lines
}

fn row(name: &str, columns: [String; 4]) -> String {
    let columns = columns.map(|column| format!("{column:>12}")).concat();
    format!("{name:<28}{columns}")
}

#[cfg(test)]
mod tests {
    use super::{Fate, Outcome, Tally, table};

    fn tally(name: &'static str, excused: bool, outcomes: &[(Fate, usize)]) -> Tally {
        let mut tally = Tally::new(name);
        for (fate, moves) in outcomes {
            let fate = fate.clone();
            let moves = *moves;
            tally.count(&Outcome { fate, moves }, excused);
        }
        tally
    }

    fn answered() -> Fate {
        Fate::Answered("device-1".to_owned())
    }

    fn lost() -> Fate {
        Fate::Lost("gone".to_owned())
    }

    fn failed() -> Fate {
        Fate::Failed("too late".to_owned())
    }

    #[test]
    fn the_columns_of_a_table_stand_below_each_other() {
        let quiet = tally("quiet", false, &[(answered(), 0), (answered(), 2)]);
        let loud = tally("loud", true, &[(lost(), 0), (lost(), 1), (failed(), 0)]);
        assert_eq!(
            table(&[quiet, loud]),
            [
                "                              calls made    answered       moved      failed",
                "quiet                                  2           2           1           0",
                "loud                                   3           0           1           3",
                "loud: 2 failed: sent, and lost with the tunnel: may have been processed, or not",
                "loud: 1 failed: too late",
            ]
        );
    }

    #[test]
    fn a_lost_call_is_excused_only_where_something_was_killed() {
        let calls = [(answered(), 0), (lost(), 0)];
        tally("p", true, &calls).verdict().expect("something was");
        let error = tally("p", false, &calls).verdict();
        assert_eq!(
            error.expect_err("nothing was").to_string(),
            "p: 1 calls failed that must not: gone"
        );
    }

    #[test]
    fn no_other_failure_is_excused_nor_a_phase_without_calls() {
        for excused in [false, true] {
            let calls = [(answered(), 0), (failed(), 0)];
            let error = tally("p", excused, &calls).verdict();
            assert_eq!(
                error.expect_err("a call failed").to_string(),
                "p: 1 calls failed that must not: too late"
            );
            let error = tally("p", excused, &[]).verdict();
            assert_eq!(
                error.expect_err("there was no call").to_string(),
                "p: no call was made"
            );
        }
    }
}
