//! The results of all calls.

use std::collections::BTreeMap;

/// The count of calls over one channel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    name: String,
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

    /// A backend has answered a call.
    pub(crate) fn count_answer(&mut self, backend: &str) {
        *self.answered.entry(backend.to_owned()).or_default() += 1;
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How many backends have answered calls.
    pub(crate) fn backends(&self) -> usize {
        self.answered.len()
    }

    fn row(&self) -> String {
        let calls: usize = self.answered.values().sum();
        let backends = self.answered.iter().map(|(name, n)| format!("{name}: {n}"));
        let backends = backends.collect::<Vec<_>>().join(", ");
        row(&self.name, &calls.to_string(), &backends)
    }
}

/// The lines of a table with a row for each tally.
pub(crate) fn table<'a>(tallies: impl Iterator<Item = &'a Tally>) -> Vec<String> {
    let mut lines = vec![row("", "calls", "answered by backend")];
    lines.extend(tallies.map(Tally::row));
    lines
}

fn row(name: &str, calls: &str, backends: &str) -> String {
    format!("{name:<12}{calls:>10}   {backends}")
}

#[cfg(test)]
mod tests {
    use super::{Tally, table};

    #[test]
    fn the_columns_of_a_table_stand_below_each_other() {
        let mut tally = Tally::new("plain calls");
        for backend in ["B", "A", "B"] {
            tally.count_answer(backend);
        }
        assert_eq!(
            table([&tally].into_iter()),
            [
                "                 calls   answered by backend",
                "plain calls          3   A: 1, B: 2",
            ]
        );
    }
}
