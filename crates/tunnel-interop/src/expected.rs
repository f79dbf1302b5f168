//! The known failures of the foreign peers, read from `expected-failures.toml`.

use std::{fmt, fs};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tunnel_process::root;

use crate::cases::cases;
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
    /// The case, or several: `*` stands for any text.
    pub(crate) case: String,
    /// A substring of the failure message.
    pub(crate) symptom: String,
    /// The error of the peer.
    pub(crate) reason: String,
    /// Whether the case also passes, because it depends on a race in the peer.
    #[serde(default)]
    pub(crate) sometimes: bool,
    /// Whether the case takes its whole timeout, and so is not run unless asked for.
    #[serde(default)]
    pub(crate) hangs: bool,
}

/// One value, several, or any value.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Pattern<T> {
    /// This value only.
    One(T),
    /// These values.
    Several(Vec<T>),
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
    pub(crate) fn load(pairs: &[Pair]) -> Result<Self> {
        let text =
            fs::read_to_string(root().join(FILE)).with_context(|| format!("cannot read {FILE}"))?;
        let read = Self::parse(&text).and_then(|all| all.check(pairs).map(|()| all));
        read.with_context(|| format!("{FILE} is wrong"))
    }

    fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }

    /// Rejects entries that match no case or pair: nothing would ever show that they are stale.
    fn check(&self, pairs: &[Pair]) -> Result<()> {
        for entry in &self.expected {
            let what = || format!("the entry for {entry}");
            ensure!(!entry.symptom.is_empty(), "{} has no symptom", what());
            ensure!(!entry.reason.is_empty(), "{} has no reason", what());
            let mut met = pairs.iter().filter(|pair| entry.is_about(pair)).peekable();
            ensure!(met.peek().is_some(), "{}: there is no such pair", what());
            let has_case = |pair: &&Pair| cases(pair).iter().any(|case| entry.names(case));
            ensure!(
                met.clone().any(|pair| has_case(&pair)),
                "{}: there is no such case",
                what()
            );
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
            .filter(|entry| entry.names(case) && entry.is_about(pair))
            .collect()
    }
}

impl ExpectedFailure {
    fn names(&self, case: &str) -> bool {
        let mut rest = case;
        let mut parts = self.case.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(after) = rest.strip_prefix(first) else {
            return false;
        };
        rest = after;
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            match rest.split_once(part) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        true
    }

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
    fn is(&self, thing: T) -> bool {
        match self {
            Self::One(one) => *one == thing,
            Self::Several(several) => several.contains(&thing),
            Self::Any(Star::Star) => true,
        }
    }

    fn name(&self, name: fn(T) -> &'static str) -> String {
        match self {
            Self::One(one) => name(*one).to_owned(),
            Self::Several(several) => {
                let names: Vec<_> = several.iter().map(|one| name(*one)).collect();
                names.join(" and ")
            }
            Self::Any(Star::Star) => "*".to_owned(),
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
        direction = ["forward", "reverse"]
        revision = "one"
        case = "unary_fails*_messages"
        symptom = "expected OK"
        reason = "It is asleep."
    "#;

    fn checked(text: &str) -> anyhow::Result<Expectations> {
        let expectations = Expectations::parse(text)?;
        expectations.check(&all_pairs())?;
        Ok(expectations)
    }

    /// The error for an entry with one part replaced by another.
    fn error(from: &str, to: &str) -> String {
        let error = checked(&ENTRY.replace(from, to)).expect_err("it is wrong");
        format!("{error:#}")
    }

    #[test]
    fn an_entry_is_about_the_pairs_and_cases_that_it_names() {
        let expectations = checked(ENTRY).expect("it is right");
        let mut pair = Pair {
            caller: Peer::Rust,
            handler: Peer::Python,
            direction: Direction::Reverse,
            revision: Revision::One,
        };
        let count = |pair: &Pair, case| expectations.of(pair, case).len();
        assert_eq!(count(&pair, "unary_fails_before_messages"), 1);
        assert_eq!(count(&pair, "unary_fails_before_messages_too"), 0);
        assert_eq!(count(&pair, "bidi_fails_before_messages"), 0);
        pair.direction = Direction::Plain;
        assert_eq!(count(&pair, "unary_fails_before_messages"), 0);
    }

    #[test]
    fn entries_that_no_case_or_pair_can_match_are_errors() {
        assert!(error("unary_fails", "unarmed").contains("no such case"));
        let no_pair = ENTRY.replace("rust", "examples").replace("one", "zero");
        let error = checked(&no_pair).expect_err("it is wrong");
        assert!(error.to_string().contains("no such pair"), "{error}");
    }

    #[test]
    fn entries_without_a_symptom_or_with_unknown_words_are_errors() {
        assert!(error("expected OK", "").contains("no symptom"));
        error("\"rust\"", "\"rest\"");
        error("symptom", "synonym");
    }

    #[test]
    fn failures_between_two_rust_ends_cannot_be_expected() {
        let message = error("\"python\"", "\"*\"");
        assert!(message.contains("Rust → Rust"), "{message}");
    }
}
