//! The results of all calls.

use std::collections::BTreeMap;

/// The count of calls over one channel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    name: String,
    rounds: usize,
    held: usize,
    refused: usize,
    /// How many calls each backend has answered.
    answered: BTreeMap<String, usize>,
}

impl Tally {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// Counts a round, and whether one backend answered all its calls.
    pub(crate) fn count_round(&mut self, held: bool) {
        self.rounds += 1;
        self.held += usize::from(held);
    }

    /// A backend has answered a call.
    pub(crate) fn count_answer(&mut self, backend: &str) {
        *self.answered.entry(backend.to_owned()).or_default() += 1;
    }

    /// A backend did not know the session of a call.
    pub(crate) fn count_refusal(&mut self) {
        self.refused += 1;
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds
    }

    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// How many backends have answered calls.
    pub(crate) fn backends(&self) -> usize {
        self.answered.len()
    }

    fn row(&self) -> String {
        let answered: usize = self.answered.values().sum();
        let backends = self.answered.iter().map(|(name, n)| format!("{name}: {n}"));
        let backends = backends.collect::<Vec<_>>().join(", ");
        row(
            &self.name,
            [self.rounds, self.held, answered, self.refused].map(|n| n.to_string()),
            &backends,
        )
    }
}

/// The lines of a table with a row for each tally.
pub(crate) fn table<'a>(tallies: impl Iterator<Item = &'a Tally>) -> Vec<String> {
    let columns = ["sessions", "held", "answered", "refused"].map(str::to_owned);
    let mut lines = vec![row("", columns, "answered by backend")];
    lines.extend(tallies.map(Tally::row));
    lines
}

fn row(name: &str, columns: [String; 4], backends: &str) -> String {
    let columns = columns.map(|column| format!("{column:>10}")).concat();
    format!("{name:<12}{columns}   {backends}")
}

#[cfg(test)]
mod tests {
    use super::{Tally, table};

    #[test]
    fn the_columns_of_a_table_stand_below_each_other() {
        let mut tally = Tally::new("tunnel 1");
        tally.count_answer("B");
        tally.count_answer("B");
        tally.count_refusal();
        tally.count_round(false);
        tally.count_round(true);
        assert_eq!(
            table([&tally].into_iter()),
            [
                "              sessions      held  answered   refused   answered by backend",
                "tunnel 1             2         1         2         1   B: 2",
            ]
        );
    }
}
