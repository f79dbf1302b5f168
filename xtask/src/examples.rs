//! The examples that `cargo xtask run-example` knows.

/// An example.
pub(crate) struct Example {
    /// The name on the command line.
    pub(crate) name: &'static str,
    /// What the example shows, in one line.
    pub(crate) about: &'static str,
    /// The package of the programs.
    pub(crate) package: &'static str,
    /// The programs, and how they are run.
    pub(crate) kind: Kind,
}

impl Example {
    /// Whether the example runs the program `tunnel`.
    pub(crate) fn runs_tunnel(&self) -> bool {
        self.package == "any-language"
    }
}

/// The programs of an example, and how they are run.
pub(crate) enum Kind {
    /// A single program.
    Alone {
        /// The name of the program.
        program: &'static str,
    },
    /// A server that runs until it is stopped, and a client that ends by itself.
    ClientAndServer {
        /// The name of the server.
        server: &'static str,
        /// The name of the client.
        client: &'static str,
        /// The default options of the client.
        options: &'static [ClientOption],
    },
}

/// A default option for the client of an example.
pub(crate) struct ClientOption {
    /// The name of the option.
    pub(crate) name: &'static str,
    /// The value, if the option takes one.
    pub(crate) value: Option<&'static str>,
    /// Whether the option is omitted at a terminal, where the user can press Ctrl-C.
    pub(crate) unattended_only: bool,
}

impl ClientOption {
    const fn new(name: &'static str, value: Option<&'static str>) -> Self {
        Self {
            name,
            value,
            unattended_only: false,
        }
    }

    const fn unattended(self) -> Self {
        Self {
            unattended_only: true,
            ..self
        }
    }
}

const fn forward_tunnel(options: &'static [ClientOption]) -> Kind {
    Kind::ClientAndServer {
        server: "forward-tunnel-server",
        client: "forward-tunnel-client",
        options,
    }
}

/// A program of the cookbook, which shows one thing and ends by itself.
const fn cookbook(name: &'static str, about: &'static str) -> Example {
    Example {
        name,
        about,
        package: "cookbook",
        kind: Kind::Alone { program: name },
    }
}

/// All examples, in the recommended reading order.
pub(crate) const EXAMPLES: &[Example] = &[
    Example {
        name: "forward-tunnel",
        about: "an ordinary tonic client calls an ordinary tonic service through a tunnel",
        package: "forward-tunnel",
        kind: forward_tunnel(&[]),
    },
    cookbook(
        "session-affinity",
        "two backends behind one address: plain calls break a session, a tunnel holds it",
    ),
    Example {
        name: "load-balancer",
        about: "two backends behind HAProxy: plain calls spread, those in a tunnel stay on one",
        package: "load-balancer",
        kind: Kind::Alone {
            program: "load-balancer",
        },
    },
    Example {
        name: "many-calls",
        about: "1,000 calls at once on one tunnel, every answer checked",
        package: "forward-tunnel",
        kind: forward_tunnel(&[ClientOption::new("--calls", Some("1000"))]),
    },
    Example {
        name: "long-lived",
        about: "a tunnel kept open until Ctrl-C, with a call every second",
        package: "forward-tunnel",
        kind: forward_tunnel(&[
            ClientOption::new("--keep-open", None),
            ClientOption::new("--for", Some("3")).unattended(),
        ]),
    },
    Example {
        name: "reverse-tunnel",
        about: "a client that nobody can dial serves; the server it has dialled calls it",
        package: "reverse-tunnel",
        kind: Kind::ClientAndServer {
            server: "reverse-tunnel-server",
            client: "reverse-tunnel-client",
            options: &[],
        },
    },
    cookbook(
        "many-devices",
        "twenty devices, called by key and in turn; one goes away and comes back",
    ),
    cookbook(
        "proxy-by-key",
        "any gRPC client reaches any service of the device that its call names",
    ),
    cookbook(
        "tls",
        "a server that proves its name, and a client that trusts no other",
    ),
    cookbook(
        "mutual-tls",
        "devices known by the names in their certificates",
    ),
    cookbook(
        "token-auth",
        "devices admitted by tokens; revoking one ends its tunnel",
    ),
    cookbook(
        "tower-layers",
        "a token, a limit on concurrency and a timeout around each call",
    ),
    cookbook(
        "health",
        "health checks of a device by key, and of a gateway that is about to stop",
    ),
    cookbook("reflection", "the services of a device are listed"),
    cookbook(
        "tracing",
        "one trace over a plain client, a gateway and a device, by OpenTelemetry",
    ),
    cookbook("metrics", "tunnels and calls at a Prometheus endpoint"),
    cookbook(
        "compression",
        "of single calls, or of everything that a tunnel carries",
    ),
    cookbook("rich-errors", "a status with typed details"),
    cookbook(
        "deadlines",
        "cancelled calls and deadlines end their handlers",
    ),
    cookbook(
        "large-file",
        "256 MiB up and down, with a progress bar and in flat memory",
    ),
    cookbook(
        "graceful-restart",
        "a server is replaced by the next one during calls, and none fails",
    ),
    cookbook("nested", "a reverse tunnel inside a forward tunnel"),
    cookbook(
        "in-memory",
        "tunnels of both directions without sockets, for tests",
    ),
    Example {
        name: "fleet",
        about: "three gateways with etcd reach twenty devices; one is killed, all are restarted",
        package: "fleet",
        kind: Kind::Alone { program: "fleet" },
    },
    Example {
        name: "any-language",
        about: "without code: a server in Python, by an agent and a gateway of the program tunnel",
        package: "any-language",
        kind: Kind::Alone {
            program: "any-language",
        },
    },
    Example {
        name: "custom-transport",
        about: "the protocol over a byte stream of one's own, without tonic",
        package: "custom-transport",
        kind: Kind::Alone {
            program: "custom-transport",
        },
    },
    Example {
        name: "web-socket",
        about: "the same over a WebSocket",
        package: "web-socket",
        kind: Kind::Alone {
            program: "web-socket",
        },
    },
];
