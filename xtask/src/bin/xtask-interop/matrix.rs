//! The pairs of the matrix: which programs are run with each other.

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A program that can be one end of a tunnel.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Peer {
    /// The Rust peer.
    Rust,
    /// The Go peer.
    Go,
    /// The Python peer.
    Python,
    /// The programs of the examples, run as a user runs them.
    Examples,
    /// The Rust program with gRPC's own interop cases and the channel tests of grpchantesting.
    #[serde(rename = "grpc-rust")]
    GrpcRust,
    /// The Go program with the original implementations of the same cases.
    #[serde(rename = "grpc-go")]
    GrpcGo,
}

/// A group of programs that serve the same services and therefore have the same cases.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Family {
    /// The programs with the cases for tunnels.
    Tunnels,
    /// The programs with the interop cases of gRPC implementations.
    Grpc,
}

/// The cases of each family.
pub(crate) type Cases = BTreeMap<Family, Vec<String>>;

/// The direction of the tunnel: which end dials.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    /// The caller dials.
    Forward,
    /// The handler dials.
    Reverse,
}

/// The highest revision of the protocol that both ends offer.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Revision {
    /// With flow control.
    One,
    /// Without.
    Zero,
}

/// The peer that limits a run to the pairs with that peer at one end.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Only {
    /// Pairs with the Go peer.
    Go,
    /// Pairs with the Python peer.
    Python,
    /// Pairs with a Rust program at one or both ends.
    Rust,
}

/// A caller and a handler, with the direction and the revision of their tunnels.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(crate) struct Pair {
    pub(crate) caller: Peer,
    pub(crate) handler: Peer,
    pub(crate) direction: Direction,
    pub(crate) revision: Revision,
}

/// Callers and handlers, in the order in which they are run and shown. Go with Go is the baseline:
/// the reference implementation with itself.
const ENDS: &[(Peer, Peer)] = &[
    (Peer::Rust, Peer::Rust),
    (Peer::Rust, Peer::Go),
    (Peer::Go, Peer::Rust),
    (Peer::Rust, Peer::Python),
    (Peer::Python, Peer::Rust),
    (Peer::Examples, Peer::Go),
    (Peer::Go, Peer::Examples),
    (Peer::Examples, Peer::Python),
    (Peer::Python, Peer::Examples),
    (Peer::Go, Peer::Go),
    (Peer::GrpcRust, Peer::GrpcRust),
    (Peer::GrpcRust, Peer::GrpcGo),
    (Peer::GrpcGo, Peer::GrpcRust),
    (Peer::GrpcGo, Peer::GrpcGo),
];

/// Foreign peers with each other; these pairs do not test the Rust side.
const FOREIGN_ENDS: &[(Peer, Peer)] = &[
    (Peer::Go, Peer::Python),
    (Peer::Python, Peer::Go),
    (Peer::Python, Peer::Python),
];

/// The directions and revisions of a pair's tunnels, in the order of the tables' columns.
pub(crate) const WAYS: [(Direction, Revision); 4] = [
    (Direction::Forward, Revision::One),
    (Direction::Forward, Revision::Zero),
    (Direction::Reverse, Revision::One),
    (Direction::Reverse, Revision::Zero),
];

/// The cases that the programs of the examples have, named as in the peers.
const EXAMPLE_CASES: &[&str] = &["echo", "echo-error"];

/// The pairs of the matrix.
pub(crate) fn pairs() -> Vec<Pair> {
    let pairs = ENDS.iter().flat_map(|ends| pairs_of(*ends));
    pairs.collect()
}

/// The pairs of the matrix and the pairs of foreign peers with each other.
pub(crate) fn all_pairs() -> Vec<Pair> {
    let foreign = FOREIGN_ENDS.iter().flat_map(|ends| pairs_of(*ends));
    pairs().into_iter().chain(foreign).collect()
}

/// The pairs of two ends, one for each direction and revision. The examples have no option for the
/// revision, so they run with revision one only.
fn pairs_of((caller, handler): (Peer, Peer)) -> impl Iterator<Item = Pair> {
    let pairs = WAYS.map(|(direction, revision)| Pair {
        caller,
        handler,
        direction,
        revision,
    });
    let is_possible = |pair: &Pair| !pair.has_examples() || pair.revision == Revision::One;
    pairs.into_iter().filter(is_possible)
}

impl Pair {
    /// Whether a run with this limit contains this pair.
    pub(crate) fn is_wanted(&self, only: Option<Only>) -> bool {
        let ends = [self.caller, self.handler];
        match only {
            None => true,
            Some(Only::Go) => ends
                .iter()
                .any(|end| matches!(end, Peer::Go | Peer::GrpcGo)),
            Some(Only::Python) => ends.contains(&Peer::Python),
            Some(Only::Rust) => ends.iter().any(|end| !end.is_foreign()),
        }
    }

    /// The cases that both ends have.
    pub(crate) fn cases(&self, cases: &Cases) -> Vec<String> {
        let known = |case: &&String| !self.has_examples() || is_example_case(case);
        let cases = cases.get(&self.caller.family()).into_iter().flatten();
        cases.filter(known).cloned().collect()
    }

    /// Whether one end is a program of the examples.
    pub(crate) fn has_examples(&self) -> bool {
        [self.caller, self.handler].contains(&Peer::Examples)
    }

    /// Whether one end is a foreign program, which may itself cause a failure.
    pub(crate) fn has_foreign_end(&self) -> bool {
        self.caller.is_foreign() || self.handler.is_foreign()
    }

    /// The file name, without extension, for the log of this pair.
    pub(crate) fn file_stem(&self) -> String {
        format!(
            "{}-{}-{}-{}",
            self.caller.id(),
            self.handler.id(),
            self.direction.id(),
            self.revision.id()
        )
    }
}

fn is_example_case(case: &str) -> bool {
    EXAMPLE_CASES.contains(&case)
}

impl Peer {
    /// The name in files and on command lines.
    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Go => "go",
            Self::Python => "python",
            Self::Examples => "examples",
            Self::GrpcRust => "grpc-rust",
            Self::GrpcGo => "grpc-go",
        }
    }

    fn is_foreign(self) -> bool {
        matches!(self, Self::Go | Self::Python | Self::GrpcGo)
    }

    /// The family whose cases this peer has.
    pub(crate) fn family(self) -> Family {
        match self {
            Self::Rust | Self::Go | Self::Python | Self::Examples => Family::Tunnels,
            Self::GrpcRust | Self::GrpcGo => Family::Grpc,
        }
    }
}

impl Direction {
    /// The name in files and on command lines.
    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Reverse => "reverse",
        }
    }
}

impl Revision {
    /// The name in files and on command lines.
    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Zero => "zero",
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rust => "Rust",
            Self::Go => "Go",
            Self::Python => "Python",
            Self::Examples => "Rust examples",
            Self::GrpcRust => "Rust, gRPC's cases",
            Self::GrpcGo => "Go, gRPC's cases",
        })
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (caller, handler) = (self.caller, self.handler);
        let (direction, revision) = (self.direction.id(), self.revision.id());
        write!(f, "{caller} → {handler}, {direction}, revision {revision}")
    }
}

#[cfg(test)]
mod tests {
    use super::{Cases, Direction, Family, Only, Pair, Peer, Revision, all_pairs, pairs};

    fn count(only: Only) -> usize {
        let wanted = |pair: &&Pair| pair.is_wanted(Some(only));
        pairs().iter().filter(wanted).count()
    }

    #[test]
    fn a_peer_is_run_with_rust_in_both_roles_both_directions_and_both_revisions() {
        for foreign in [Peer::Go, Peer::Python] {
            for (ours, ways) in [(Peer::Rust, 4), (Peer::Examples, 2)] {
                let calls = |caller, handler| {
                    pairs()
                        .iter()
                        .filter(|pair| (pair.caller, pair.handler) == (caller, handler))
                        .count()
                };
                assert_eq!(calls(foreign, ours), ways);
                assert_eq!(calls(ours, foreign), ways);
            }
        }
    }

    #[test]
    fn a_run_that_is_limited_has_the_pairs_of_that_peer() {
        assert_eq!(count(Only::Go), 16 + 12);
        assert_eq!(count(Only::Python), 12);
        assert_eq!(count(Only::Rust), pairs().len() - 8);
    }

    #[test]
    fn foreign_peers_meet_each_other_only_where_that_is_wanted() {
        let without_ours = |pairs: &[Pair]| {
            let ours = |pair: &&Pair| pair.is_wanted(Some(Only::Rust));
            pairs.len() - pairs.iter().filter(ours).count()
        };
        assert_eq!(without_ours(&pairs()), 8);
        assert_eq!(without_ours(&all_pairs()), 20);
    }

    #[test]
    fn examples_know_the_cases_of_their_service_alone() {
        let names = ["unary", "echo", "echo-error"].map(str::to_owned);
        let known = |names: &[String]| Cases::from([(Family::Tunnels, names.to_vec())]);
        let mut pair = Pair {
            caller: Peer::Rust,
            handler: Peer::Python,
            direction: Direction::Forward,
            revision: Revision::One,
        };
        assert_eq!(pair.cases(&known(&names)), names);
        pair.caller = Peer::Examples;
        assert_eq!(pair.cases(&known(&names)), ["echo", "echo-error"]);
        assert_eq!(pair.cases(&known(&names[..1])), [""; 0]);
        assert_eq!(pair.file_stem(), "examples-python-forward-one");
    }
}
