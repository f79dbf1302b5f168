//! The compared variants: the transport of calls, and the program at each end.

use std::fmt;

/// The transport between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// One HTTP/2 connection with tonic's defaults.
    Plain,
    /// One HTTP/2 connection with large windows and frames.
    Tuned,
    /// One TCP connection, with one yamux stream for each tonic connection.
    Yamux,
    /// An HTTP/2 connection inside one bidirectional call.
    Http2,
    Forward {
        inline: bool,
    },
    /// A forward tunnel with telemetry at both ends.
    Observed(Telemetry),
    Reverse {
        inline: bool,
    },
}

/// What is switched on at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Telemetry {
    /// A Prometheus recorder, and log lines at `info`.
    Metrics,
    /// Log lines and spans at `debug`: for each call.
    Spans,
}

impl Way {
    pub(crate) const ALL: [Self; 10] = [
        Self::Plain,
        Self::Tuned,
        Self::Yamux,
        Self::Http2,
        Self::Forward { inline: false },
        Self::Forward { inline: true },
        Self::Observed(Telemetry::Metrics),
        Self::Observed(Telemetry::Spans),
        Self::Reverse { inline: false },
        Self::Reverse { inline: true },
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain tonic",
            Self::Tuned => "tuned tonic",
            Self::Yamux => "tonic over yamux",
            Self::Http2 => "http/2 in a stream",
            Self::Forward { inline: false } => "forward tunnel",
            Self::Forward { inline: true } => "forward inline",
            Self::Observed(Telemetry::Metrics) => "forward, metrics",
            Self::Observed(Telemetry::Spans) => "forward, spans",
            Self::Reverse { inline: false } => "reverse tunnel",
            Self::Reverse { inline: true } => "reverse inline",
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|way| way.name() == name);
        found.ok_or_else(|| format!("there is no variant {name}"))
    }

    /// The name in the Go program, if the Go program has this transport.
    pub(crate) fn name_in_go(self) -> Option<&'static str> {
        match self {
            Self::Plain => Some("plain"),
            Self::Forward { inline: false } => Some("forward"),
            Self::Reverse { inline: false } => Some("reverse"),
            _ => None,
        }
    }

    /// Whether the server process dials.
    pub(crate) fn is_reverse(self) -> bool {
        matches!(self, Self::Reverse { .. })
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The language of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Rust,
    Go,
}

/// A variant: one column of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    pub(crate) way: Way,
    pub(crate) client: Language,
    pub(crate) server: Language,
    pub(crate) spreads: Spreads,
}

/// What a variant does in workloads with many tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spreads {
    /// Uses one connection.
    No,
    /// Uses as many tunnels or connections as the workload says.
    Yes,
    /// Like [`Yes`](Self::Yes), and takes part in no other workload.
    Only,
}

const fn rust(name: &'static str, way: Way, spreads: Spreads) -> Variant {
    Variant {
        name,
        way,
        client: Language::Rust,
        server: Language::Rust,
        spreads,
    }
}

const fn with_go(name: &'static str, way: Way, client: Language, server: Language) -> Variant {
    Variant {
        name,
        way,
        client,
        server,
        spreads: Spreads::No,
    }
}

const FORWARD: Way = Way::Forward { inline: false };
const REVERSE: Way = Way::Reverse { inline: false };

/// All variants, in the order in which each round runs them.
pub(crate) const VARIANTS: &[Variant] = &[
    rust("plain tonic", Way::Plain, Spreads::No),
    rust("plain connections", Way::Plain, Spreads::Only),
    rust("tuned tonic", Way::Tuned, Spreads::No),
    rust("tonic over yamux", Way::Yamux, Spreads::No),
    rust("http/2 in a stream", Way::Http2, Spreads::No),
    rust("forward tunnel", FORWARD, Spreads::Yes),
    rust(
        "forward inline",
        Way::Forward { inline: true },
        Spreads::Yes,
    ),
    rust(
        "forward, metrics",
        Way::Observed(Telemetry::Metrics),
        Spreads::No,
    ),
    rust(
        "forward, spans",
        Way::Observed(Telemetry::Spans),
        Spreads::No,
    ),
    rust("reverse tunnel", REVERSE, Spreads::Yes),
    rust(
        "reverse inline",
        Way::Reverse { inline: true },
        Spreads::Yes,
    ),
    with_go("plain go", Way::Plain, Language::Go, Language::Go),
    with_go("go in go", FORWARD, Language::Go, Language::Go),
    with_go("rust calls go", FORWARD, Language::Rust, Language::Go),
    with_go("go calls rust", FORWARD, Language::Go, Language::Rust),
    with_go("go in go reverse", REVERSE, Language::Go, Language::Go),
    with_go(
        "rust calls go reverse",
        REVERSE,
        Language::Rust,
        Language::Go,
    ),
    with_go(
        "go calls rust reverse",
        REVERSE,
        Language::Go,
        Language::Rust,
    ),
];

impl Variant {
    /// Whether one of the ends is the Go program.
    pub(crate) fn needs_go(&self) -> bool {
        [self.client, self.server].contains(&Language::Go)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transport_is_found_by_its_name() {
        for way in Way::ALL {
            assert_eq!(Way::parse(way.name()), Ok(way));
        }
        assert!(Way::parse("a tin can on a string").is_err());
    }

    #[test]
    fn the_go_program_has_the_transport_of_every_variant_that_needs_it() {
        for variant in VARIANTS.iter().filter(|v| v.needs_go()) {
            assert!(variant.way.name_in_go().is_some(), "{}", variant.name);
        }
    }

    #[test]
    fn no_two_variants_have_one_name() {
        for (n, variant) in VARIANTS.iter().enumerate() {
            assert!(VARIANTS[..n].iter().all(|v| v.name != variant.name));
        }
    }
}
