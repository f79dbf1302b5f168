//! Parses the lines that peers and examples print.

use std::collections::BTreeMap;

use crate::matrix::{Direction, Peer};
use crate::outcome::Verdict;

/// The port in a line that says where a program listens. A peer prints `LISTENING PORT`, an example
/// a sentence that ends in `listening on port PORT`.
pub(crate) fn port_in(line: &str) -> Option<u16> {
    let (_, port) = line
        .split_once("LISTENING ")
        .or_else(|| line.split_once("listening on port "))?;
    port.trim().parse().ok()
}

/// Collects the verdicts of a caller from the lines of its output.
pub(crate) struct Listener {
    dialect: Dialect,
    cases: Vec<String>,
    verdicts: BTreeMap<String, Verdict>,
    done: bool,
}

/// The format in which a caller prints the verdicts of its cases.
enum Dialect {
    /// `CASE NAME PASS` or `CASE NAME FAIL SENTENCE` for each case, then `PASS` or `FAIL SENTENCE`
    /// for all of them. A run of a single case prints the last line only.
    Peer,
    /// The log lines of an example. A reverse example does not end after its cases
    /// (`runs_on`): it waits for the next client.
    Example { runs_on: bool },
}

impl Listener {
    /// Collects the verdicts of a caller that was started with these cases.
    pub(crate) fn new(caller: Peer, direction: Direction, cases: &[String]) -> Self {
        let dialect = match (caller, direction) {
            (Peer::Examples, _) => Dialect::Example {
                runs_on: direction == Direction::Reverse,
            },
            _ => Dialect::Peer,
        };
        Self {
            dialect,
            cases: cases.to_vec(),
            verdicts: BTreeMap::new(),
            done: false,
        }
    }

    /// Parses a line of the caller.
    pub(crate) fn hear(&mut self, line: &str) {
        match self.dialect {
            Dialect::Peer => self.hear_peer(line),
            Dialect::Example { runs_on } => self.hear_example(line, runs_on),
        }
    }

    /// The number of cases that have a verdict.
    pub(crate) fn heard(&self) -> usize {
        self.verdicts.len()
    }

    /// Whether the caller has finished its cases but will not end by itself.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    pub(crate) fn into_verdicts(self) -> BTreeMap<String, Verdict> {
        self.verdicts
    }

    fn hear_peer(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("CASE ")
            && let Some((case, verdict)) = rest.split_once(' ')
            && let Some(verdict) = verdict_in(verdict)
        {
            self.note(case, verdict);
        } else if let [case] = self.cases.as_slice()
            && let Some(verdict) = verdict_in(line)
        {
            self.note(&case.clone(), verdict);
        }
    }

    fn hear_example(&mut self, line: &str, runs_on: bool) {
        if line.contains("Expected error: NotFound: no such thing") {
            self.note("echo-error", Verdict::Pass);
        } else if line.contains("✓ All calls") {
            // An example prints this after its first calls and after its last calls.
            self.note("echo", Verdict::Pass);
        } else if let Some((_, sentence)) = line.split_once(" - ERROR - ") {
            // The error ends the example, so every case without a verdict failed because of it.
            for case in self.cases.clone() {
                if !self.verdicts.contains_key(&case) {
                    self.note(&case, Verdict::Fail(sentence.to_owned()));
                }
            }
        }
        self.done |= runs_on && line.contains("✓ Tunnel closed");
    }

    fn note(&mut self, case: &str, verdict: Verdict) {
        if self.cases.iter().any(|wanted| wanted == case) {
            self.verdicts.insert(case.to_owned(), verdict);
        }
    }
}

fn verdict_in(text: &str) -> Option<Verdict> {
    match text.split_once(' ') {
        None if text == "PASS" => Some(Verdict::Pass),
        None if text == "FAIL" => Some(Verdict::Fail(String::new())),
        Some(("FAIL", sentence)) => Some(Verdict::Fail(sentence.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Listener, port_in};
    use crate::matrix::{Direction, Peer};
    use crate::outcome::Verdict;

    fn listen(caller: Peer, cases: &[&str], lines: &[&str]) -> Listener {
        let cases: Vec<_> = cases.iter().map(ToString::to_string).collect();
        let mut listener = Listener::new(caller, Direction::Reverse, &cases);
        for line in lines {
            listener.hear(line);
        }
        listener
    }

    fn fail(sentence: &str) -> Verdict {
        Verdict::Fail(sentence.to_owned())
    }

    #[test]
    fn ports_are_found_in_what_peers_and_examples_say() {
        assert_eq!(port_in("LISTENING 4711"), Some(4711));
        let line = "2026-01-14 10:00:00 - INFO - ✓ Server listening on port 50051";
        assert_eq!(port_in(line), Some(50051));
        assert_eq!(port_in("CONNECTED"), None);
    }

    #[test]
    fn a_peer_has_a_line_for_each_case_and_the_total_is_none() {
        let lines = [
            "LISTENING 4711",
            "CASE unary PASS",
            "CASE echo FAIL expected OK, got CASE x PASS",
            "CASE of a different kind",
            "FAIL 1 of 2 cases: echo",
        ];
        let listener = listen(Peer::Go, &["unary", "echo", "deadline"], &lines);
        assert_eq!(listener.heard(), 2);
        assert!(!listener.is_done());
        let verdicts = listener.into_verdicts();
        assert_eq!(verdicts["unary"], Verdict::Pass);
        assert_eq!(verdicts["echo"], fail("expected OK, got CASE x PASS"));
    }

    #[test]
    fn of_a_single_case_a_peer_says_pass_or_fail_alone() {
        let passed = listen(Peer::Python, &["unary"], &["PASS"]);
        assert_eq!(passed.into_verdicts()["unary"], Verdict::Pass);
        let failed = listen(Peer::Python, &["unary"], &["FAIL no tunnel"]);
        assert_eq!(failed.into_verdicts()["unary"], fail("no tunnel"));
    }

    #[test]
    fn an_example_has_passed_when_it_says_that_it_has_called() {
        let lines = [
            "2026-01-14 10:00:00 - INFO - Expected error: NotFound: no such thing",
            "2026-01-14 10:00:00 - INFO - ✓ All calls to client completed successfully!",
            "2026-01-14 10:00:00 - INFO - ✓ Tunnel closed: the tunnel was drained",
        ];
        let listener = listen(Peer::Examples, &["echo", "echo-error"], &lines);
        assert!(listener.is_done());
        let verdicts = listener.into_verdicts();
        assert_eq!(verdicts["echo"], Verdict::Pass);
        assert_eq!(verdicts["echo-error"], Verdict::Pass);
    }

    #[test]
    fn an_example_that_gives_up_fails_in_what_it_has_not_said() {
        let lines = [
            "2026-01-14 10:00:00 - INFO - Expected error: NotFound: no such thing",
            "2026-01-14 10:00:00 - ERROR - the call \"x\" failed: Unavailable: gone",
        ];
        let verdicts = listen(Peer::Examples, &["echo", "echo-error"], &lines).into_verdicts();
        assert_eq!(verdicts["echo-error"], Verdict::Pass);
        assert_eq!(
            verdicts["echo"],
            fail("the call \"x\" failed: Unavailable: gone")
        );
    }
}
