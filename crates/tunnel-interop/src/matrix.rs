//! The pairs of the matrix: which implementations are run with each other, and how.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// An implementation of tunnels, or a program that uses one.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Peer {
    /// These crates.
    Rust,
    /// The Go library.
    Go,
    /// The Python library.
    Python,
    /// The programs of the examples, run as a user runs them.
    Examples,
}

/// How calls get from the caller to the handler.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    /// Without a tunnel, through the handler's bridge alone. A failure here is not the tunnel's.
    Plain,
    /// Through a tunnel that the caller opens.
    Forward,
    /// Through a tunnel that the handler opens.
    Reverse,
    /// Without a tunnel of their own, through a gateway and an agent of the program `tunnel`.
    Program,
}

/// The highest revision of the protocol that both ends offer.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
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
    /// Pairs with the Go library.
    Go,
    /// Pairs with the Python library.
    Python,
    /// Pairs with Rust at one or both ends.
    Rust,
}

/// A caller and a handler, with the direction and the revision of their tunnels.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub(crate) struct Pair {
    pub(crate) caller: Peer,
    pub(crate) handler: Peer,
    pub(crate) direction: Direction,
    pub(crate) revision: Revision,
}

use Peer::{Examples, Go, Python, Rust};

/// Callers and handlers, in the order in which they are run and shown.
const ENDS: &[(Peer, Peer)] = &[
    (Rust, Rust),
    (Rust, Go),
    (Go, Rust),
    (Rust, Python),
    (Python, Rust),
    (Examples, Go),
    (Go, Examples),
    (Examples, Python),
    (Python, Examples),
];

/// Foreign peers with each other; these pairs do not test the Rust side.
const FOREIGN_ENDS: &[(Peer, Peer)] = &[(Go, Go), (Go, Python), (Python, Go), (Python, Python)];

/// The directions and revisions of a pair, in the order of the tables' columns.
pub(crate) const WAYS: [(Direction, Revision); 6] = [
    (Direction::Plain, Revision::One),
    (Direction::Forward, Revision::One),
    (Direction::Forward, Revision::Zero),
    (Direction::Reverse, Revision::One),
    (Direction::Reverse, Revision::Zero),
    (Direction::Program, Revision::One),
];

/// The pairs of the matrix.
pub(crate) fn pairs() -> Vec<Pair> {
    ENDS.iter().flat_map(|ends| pairs_of(*ends)).collect()
}

/// The pairs of the matrix and the pairs of foreign peers with each other.
pub(crate) fn all_pairs() -> Vec<Pair> {
    let foreign = FOREIGN_ENDS.iter().flat_map(|ends| pairs_of(*ends));
    pairs().into_iter().chain(foreign).collect()
}

fn pairs_of((caller, handler): (Peer, Peer)) -> impl Iterator<Item = Pair> {
    let pairs = WAYS.map(|(direction, revision)| Pair {
        caller,
        handler,
        direction,
        revision,
    });
    pairs.into_iter().filter(Pair::is_possible)
}

impl Pair {
    /// The examples have no option for the revision, and a call without a tunnel needs a bridge.
    fn is_possible(&self) -> bool {
        match self.direction {
            Direction::Plain => self.caller == Rust && self.handler.is_foreign(),
            Direction::Program => {
                !self.has_examples() && (self.caller == Rust || self.handler == Rust)
            }
            _ => !self.has_examples() || self.revision == Revision::One,
        }
    }

    /// Whether a run with this limit contains this pair.
    pub(crate) fn is_wanted(&self, only: Option<Only>) -> bool {
        let has = |peer| self.caller == peer || self.handler == peer;
        match only {
            None => true,
            Some(Only::Go) => has(Go),
            Some(Only::Python) => has(Python),
            Some(Only::Rust) => has(Rust) || has(Examples),
        }
    }

    /// Whether one end is a program of the examples.
    pub(crate) fn has_examples(&self) -> bool {
        self.caller == Examples || self.handler == Examples
    }

    /// Whether one end is a foreign implementation, which may itself cause a failure.
    pub(crate) fn has_foreign_end(&self) -> bool {
        self.caller.is_foreign() || self.handler.is_foreign()
    }

    /// The file name, without extension, for the logs of this pair.
    pub(crate) fn file_stem(&self) -> String {
        let (caller, handler) = (self.caller.id(), self.handler.id());
        let (direction, revision) = (self.direction.id(), self.revision.id());
        format!("{caller}-{handler}-{direction}-{revision}")
    }
}

impl Peer {
    /// The name in files and on command lines.
    pub(crate) fn id(self) -> &'static str {
        match self {
            Rust => "rust",
            Go => "go",
            Python => "python",
            Examples => "examples",
        }
    }

    pub(crate) fn is_foreign(self) -> bool {
        matches!(self, Go | Python)
    }
}

impl Direction {
    /// The name in files and on command lines.
    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Forward => "forward",
            Self::Reverse => "reverse",
            Self::Program => "program",
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

/// The direction and the revision, for people.
pub(crate) fn describe_way((direction, revision): (Direction, Revision)) -> String {
    match direction {
        Direction::Plain => "no tunnel".to_owned(),
        Direction::Program => "the program".to_owned(),
        _ => format!("{}, revision {}", direction.id(), revision.id()),
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rust => "Rust",
            Go => "Go",
            Python => "Python",
            Examples => "Rust examples",
        })
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = describe_way((self.direction, self.revision));
        write!(f, "{} → {}, {way}", self.caller, self.handler)
    }
}

#[cfg(test)]
mod tests {
    use super::{Direction, Only, Pair, Peer, all_pairs, pairs};

    #[test]
    fn a_foreign_peer_meets_rust_in_both_roles_both_directions_and_both_revisions() {
        for foreign in [Peer::Go, Peer::Python] {
            for (ours, ways) in [(Peer::Rust, 4), (Peer::Examples, 2)] {
                for ends in [(foreign, ours), (ours, foreign)] {
                    let met = |pair: &&Pair| {
                        let has_tunnel =
                            matches!(pair.direction, Direction::Forward | Direction::Reverse);
                        (pair.caller, pair.handler) == ends && has_tunnel
                    };
                    assert_eq!(pairs().iter().filter(met).count(), ways, "{ends:?}");
                }
            }
        }
    }

    #[test]
    fn foreign_peers_meet_each_other_only_if_that_is_wanted() {
        let foreign_only = |pair: &&Pair| !pair.is_wanted(Some(Only::Rust));
        assert_eq!(pairs().iter().filter(foreign_only).count(), 0);
        assert_eq!(all_pairs().iter().filter(foreign_only).count(), 16);
    }
}
