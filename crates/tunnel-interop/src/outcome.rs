//! The outcomes of cases: their verdicts compared with the expected failures.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::expected::{Expectations, ExpectedFailure};
use crate::matrix::Pair;

/// The result of a case, as the caller prints it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// The case passed.
    Pass,
    /// The case failed, with this message.
    Fail(String),
}

/// The outcome of a case: its verdict compared with the expected failures.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// Passed, and no failure was expected.
    Passed,
    /// Failed with an expected symptom.
    ExpectedFailure { sentence: String, reason: String },
    /// Failed, and no failure was expected.
    Failed { sentence: String },
    /// Failed, but with none of the expected symptoms.
    FailedOtherwise {
        sentence: String,
        expected: Vec<String>,
    },
    /// Passed, although a failure was expected.
    SurprisePass { expected: Vec<String> },
}

impl Outcome {
    /// Compares a verdict with the expected failures.
    pub(crate) fn of(verdict: Verdict, expected: &[&ExpectedFailure]) -> Self {
        let symptoms = || expected.iter().map(|entry| entry.symptom.clone()).collect();
        match verdict {
            Verdict::Pass if expected.iter().all(|entry| entry.sometimes) => Self::Passed,
            Verdict::Pass => Self::SurprisePass {
                expected: symptoms(),
            },
            Verdict::Fail(sentence) if expected.is_empty() => Self::Failed { sentence },
            Verdict::Fail(sentence) => {
                let met = expected
                    .iter()
                    .find(|entry| sentence.contains(&entry.symptom));
                match met.map(|entry| entry.reason.clone()) {
                    Some(reason) => Self::ExpectedFailure { sentence, reason },
                    None => Self::FailedOtherwise {
                        sentence,
                        expected: symptoms(),
                    },
                }
            }
        }
    }

    /// Whether this outcome makes the run fail.
    pub(crate) fn is_unexpected(&self) -> bool {
        !matches!(self, Self::Passed | Self::ExpectedFailure { .. })
    }

    /// Describes the outcome, with the peer's message at the end.
    pub(crate) fn explain(&self) -> String {
        let quote = |symptoms: &[String]| {
            let quoted: Vec<_> = symptoms.iter().map(|text| format!("“{text}”")).collect();
            quoted.join(" or ")
        };
        match self {
            Self::Passed => "passed".to_owned(),
            Self::ExpectedFailure { sentence, .. } => format!("failed as expected: {sentence}"),
            Self::Failed { sentence } => format!("FAILED: {sentence}"),
            Self::FailedOtherwise { sentence, expected } => format!(
                "failed otherwise than expected, without {}: {sentence}",
                quote(expected)
            ),
            Self::SurprisePass { expected } => {
                format!("passed, and was expected to fail with {}", quote(expected))
            }
        }
    }
}

/// The results of a pair.
#[derive(Debug, Serialize)]
pub(crate) struct PairOutcome {
    #[serde(flatten)]
    pub(crate) pair: Pair,
    pub(crate) seconds: f64,
    pub(crate) cases: Vec<CaseOutcome>,
}

/// The result of one case.
#[derive(Debug, Serialize)]
pub(crate) struct CaseOutcome {
    pub(crate) case: String,
    pub(crate) seconds: f64,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

/// The number of cases by outcome.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) expected_failures: usize,
    pub(crate) unexpected: usize,
}

impl PairOutcome {
    /// Compares the verdicts of a pair's cases with the expected failures.
    pub(crate) fn of(
        pair: Pair,
        seconds: f64,
        cases: &[String],
        mut verdicts: BTreeMap<String, (Verdict, f64)>,
        expectations: &Expectations,
    ) -> Self {
        let judge = |case: &String| {
            let missing = || (Verdict::Fail("it was not run".to_owned()), 0.0);
            let (verdict, seconds) = verdicts.remove(case).unwrap_or_else(missing);
            CaseOutcome {
                case: case.clone(),
                seconds,
                outcome: Outcome::of(verdict, &expectations.of(&pair, case)),
            }
        };
        Self {
            pair,
            seconds,
            cases: cases.iter().map(judge).collect(),
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for case in &self.cases {
            match case.outcome {
                Outcome::Passed => counts.passed += 1,
                Outcome::ExpectedFailure { .. } => counts.expected_failures += 1,
                _ => counts.unexpected += 1,
            }
        }
        counts
    }

    /// The reasons why this pair makes the run fail, one line each.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let cases = self.cases.iter();
        let unexpected = cases.filter(|case| case.outcome.is_unexpected());
        let lines = unexpected.map(|case| format!("{}: {}", case.case, case.outcome.explain()));
        lines.collect()
    }
}

impl Counts {
    /// The sums of several counts.
    pub(crate) fn sum(all: impl IntoIterator<Item = Self>) -> Self {
        all.into_iter().fold(Self::default(), |sum, each| Self {
            passed: sum.passed + each.passed,
            expected_failures: sum.expected_failures + each.expected_failures,
            unexpected: sum.unexpected + each.unexpected,
        })
    }

    /// The counts in words, without those that are zero.
    pub(crate) fn describe(self) -> String {
        let parts = [
            (self.passed, "passed"),
            (self.expected_failures, "failed as expected"),
            (self.unexpected, "UNEXPECTED"),
        ];
        let parts = parts
            .iter()
            .filter(|(count, what)| *count > 0 || *what == "passed");
        let parts: Vec<_> = parts
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, Outcome, Verdict};
    use crate::expected::{ExpectedFailure, Pattern, Star};

    fn entry(symptom: &str) -> ExpectedFailure {
        ExpectedFailure {
            caller: Pattern::Any(Star::Star),
            handler: Pattern::Any(Star::Star),
            direction: Pattern::Any(Star::Star),
            revision: Pattern::Any(Star::Star),
            case: "unary".to_owned(),
            symptom: symptom.to_owned(),
            reason: format!("because of {symptom}"),
            sometimes: false,
            hangs: false,
        }
    }

    fn fail(sentence: &str) -> Verdict {
        Verdict::Fail(sentence.to_owned())
    }

    #[test]
    fn without_expectations_a_verdict_is_taken_as_it_is() {
        assert_eq!(Outcome::of(Verdict::Pass, &[]), Outcome::Passed);
        let failed = Outcome::of(fail("no"), &[]);
        assert!(failed.is_unexpected());
        assert_eq!(failed.explain(), "FAILED: no");
    }

    #[test]
    fn a_failure_is_expected_only_with_its_symptom() {
        let (first, second) = (entry("got nothing"), entry("got UNKNOWN"));
        let expected = [&first, &second];
        let met = Outcome::of(fail("expected OK, got UNKNOWN"), &expected);
        let Outcome::ExpectedFailure { reason, .. } = &met else {
            panic!("{met:?}");
        };
        assert_eq!(reason, "because of got UNKNOWN");
        assert!(!met.is_unexpected());

        let other = Outcome::of(fail("expected OK, got ABORTED"), &expected);
        assert!(other.is_unexpected());
        assert_eq!(
            other.explain(),
            "failed otherwise than expected, without “got nothing” or “got UNKNOWN”: \
             expected OK, got ABORTED"
        );
    }

    #[test]
    fn a_pass_where_a_failure_is_expected_is_a_surprise() {
        let expected = entry("got nothing");
        let outcome = Outcome::of(Verdict::Pass, &[&expected]);
        assert!(outcome.is_unexpected());
        assert!(outcome.explain().starts_with("passed, and was expected"));
    }

    #[test]
    fn a_failure_that_is_expected_now_and_then_may_stay_away() {
        let sometimes = ExpectedFailure {
            sometimes: true,
            ..entry("got nothing")
        };
        assert_eq!(Outcome::of(Verdict::Pass, &[&sometimes]), Outcome::Passed);
        assert!(!Outcome::of(fail("got nothing"), &[&sometimes]).is_unexpected());
        let always = entry("got UNKNOWN");
        assert!(Outcome::of(Verdict::Pass, &[&sometimes, &always]).is_unexpected());
    }

    #[test]
    fn counts_are_described_without_what_there_is_none_of() {
        let one = Counts {
            passed: 3,
            expected_failures: 0,
            unexpected: 1,
        };
        let sum = Counts::sum([one, one]);
        assert_eq!(sum.describe(), "6 passed, 2 UNEXPECTED");
        assert_eq!(Counts::default().describe(), "0 passed");
    }
}
