//! The known failures of the foreign peers, read from `expected-failures.toml`.

use std::path::Path;
use std::{fmt, fs};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::matrix::{Direction, Pair, Peer, Revision};

/// The file, relative to the root of the workspace.
pub(crate) const FILE: &str = "crates/tunnel-conformance/peers/expected-failures.toml";

/// All entries of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expectations {
    #[serde(default)]
    expected: Vec<ExpectedFailure>,
}

/// A case that fails because of an error in a foreign peer.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectedFailure {
    pub(crate) caller: Pattern<Peer>,
    pub(crate) handler: Pattern<Peer>,
    pub(crate) direction: Pattern<Direction>,
    pub(crate) revision: Pattern<Revision>,
    /// The case.
    pub(crate) case: String,
    /// A substring of the failure message.
    pub(crate) symptom: String,
    /// The error of the peer.
    pub(crate) reason: String,
}

/// One value, or any value.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Pattern<T> {
    /// This value only.
    One(T),
    /// Any value, written as `*`.
    Any(Star),
}

/// The text `*`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Star {
    #[serde(rename = "*")]
    Star,
}

impl Expectations {
    /// Reads the file and checks that every entry names an existing case and pair.
    pub(crate) fn load(root: &Path, pairs: &[Pair], cases: &[String]) -> Result<Self> {
        let text =
            fs::read_to_string(root.join(FILE)).with_context(|| format!("cannot read {FILE}"))?;
        let read = Self::parse(&text).and_then(|all| all.check(pairs, cases).map(|()| all));
        read.with_context(|| format!("{FILE} is wrong"))
    }

    fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }

    /// Rejects entries that match no case or pair: nothing would ever show that they are stale.
    fn check(&self, pairs: &[Pair], cases: &[String]) -> Result<()> {
        for entry in &self.expected {
            let what = || format!("the entry for {entry}");
            ensure!(!entry.symptom.is_empty(), "{} has no symptom", what());
            ensure!(!entry.reason.is_empty(), "{} has no reason", what());
            ensure!(
                cases.contains(&entry.case),
                "{}: there is no such case",
                what()
            );
            let mut met = pairs.iter().filter(|pair| entry.is_about(pair)).peekable();
            ensure!(met.peek().is_some(), "{}: there is no such pair", what());
            if let Some(ours) = met.find(|pair| !pair.has_foreign_end()) {
                bail!(
                    "{} matches {ours}, which has no foreign end that could cause the failure",
                    what()
                );
            }
        }
        Ok(())
    }

    /// The expected failures of a case. A failure must match any one of them, because some peers
    /// fail in different ways from run to run.
    pub(crate) fn of(&self, pair: &Pair, case: &str) -> Vec<&ExpectedFailure> {
        let entries = self.expected.iter();
        entries
            .filter(|entry| entry.case == case && entry.is_about(pair))
            .collect()
    }
}

impl ExpectedFailure {
    fn is_about(&self, pair: &Pair) -> bool {
        self.caller.is(pair.caller)
            && self.handler.is(pair.handler)
            && self.direction.is(pair.direction)
            && self.revision.is(pair.revision)
    }
}

impl fmt::Display for ExpectedFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} → {}, {}, revision {}, {}",
            self.caller.name(Peer::id),
            self.handler.name(Peer::id),
            self.direction.name(Direction::id),
            self.revision.name(Revision::id),
            self.case
        )
    }
}

impl<T: Copy + PartialEq> Pattern<T> {
    fn is(self, thing: T) -> bool {
        match self {
            Self::One(one) => one == thing,
            Self::Any(Star::Star) => true,
        }
    }

    fn name(self, name: fn(T) -> &'static str) -> &'static str {
        match self {
            Self::One(one) => name(one),
            Self::Any(Star::Star) => "*",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Expectations;
    use crate::matrix::{Direction, Pair, Peer, Revision, all_pairs};

    const ENTRY: &str = r#"
        [[expected]]
        caller = "rust"
        handler = "python"
        direction = "*"
        revision = "one"
        case = "unary"
        symptom = "expected OK"
        reason = "It is asleep."
    "#;

    fn checked(text: &str) -> anyhow::Result<Expectations> {
        let cases = ["unary", "echo"].map(str::to_owned);
        let expectations = Expectations::parse(text)?;
        expectations.check(&all_pairs(), &cases)?;
        Ok(expectations)
    }

    /// Why an entry is refused in which one thing was replaced by another.
    fn refusal(from: &str, to: &str) -> String {
        let error = checked(&ENTRY.replace(from, to)).expect_err("it is wrong");
        format!("{error:#}")
    }

    #[test]
    fn an_entry_is_about_the_pairs_that_it_names() {
        let expectations = checked(ENTRY).expect("it is right");
        let mut pair = Pair {
            caller: Peer::Rust,
            handler: Peer::Python,
            direction: Direction::Reverse,
            revision: Revision::One,
        };
        assert_eq!(expectations.of(&pair, "unary").len(), 1);
        assert_eq!(expectations.of(&pair, "echo").len(), 0);
        pair.revision = Revision::Zero;
        assert_eq!(expectations.of(&pair, "unary").len(), 0);
    }

    #[test]
    fn a_file_without_entries_is_right() {
        assert!(checked("").is_ok());
    }

    #[test]
    fn entries_that_nothing_can_meet_are_refused() {
        let message = refusal("unary", "unarmed");
        assert!(message.contains("no such case"), "{message}");
        let zero_with_examples = ENTRY.replace("rust", "examples").replace("one", "zero");
        let error = checked(&zero_with_examples).expect_err("it is wrong");
        assert!(error.to_string().contains("no such pair"), "{error}");
    }

    #[test]
    fn entries_without_a_symptom_or_with_unknown_words_are_refused() {
        let message = refusal("expected OK", "");
        assert!(message.contains("no symptom"), "{message}");
        refusal("\"rust\"", "\"rest\"");
        refusal("symptom", "synonym");
    }

    #[test]
    fn our_own_failures_cannot_be_excused() {
        let message = refusal("\"python\"", "\"*\"");
        assert!(message.contains("Rust → Rust"), "{message}");
    }
}
