//! The configuration that HAProxy is started with.

use std::fmt::Write;

use example_support::address::Address;

/// The configuration without the servers, whose lines are appended.
const TEMPLATE: &str = include_str!("haproxy.cfg");

/// The configuration for servers with these names, at these addresses.
pub(crate) fn with_servers<'a>(servers: impl Iterator<Item = (&'a str, &'a Address)>) -> String {
    let mut config = TEMPLATE.to_owned();
    for (name, address) in servers {
        // Writing to a string does not fail.
        let _ = writeln!(config, "    server {name} {address} proto h2");
    }
    config
}

#[cfg(test)]
mod tests {
    use super::{Address, with_servers};

    /// The lines that HAProxy reads, with words separated by one space.
    fn lines(config: &str) -> Vec<String> {
        let without_comments = config.lines().filter_map(|line| line.split('#').next());
        let words = without_comments.map(|line| line.split_whitespace().collect::<Vec<_>>());
        let lines = words.filter(|words| !words.is_empty());
        lines.map(|words| words.join(" ")).collect()
    }

    #[test]
    fn the_servers_end_the_backend_that_all_requests_go_to() {
        let (a, b): (Address, Address) = (
            "127.0.0.1:1001".parse().expect("an address"),
            "127.0.0.1:1002".parse().expect("an address"),
        );
        let config = with_servers([("A", &a), ("B", &b)].into_iter());
        assert_eq!(
            lines(&config),
            [
                "global",
                "maxconn 256",
                "tune.h2.initial-window-size 16777216",
                "defaults",
                "mode http",
                "timeout connect 5s",
                "timeout client 1h",
                "timeout server 1h",
                "frontend grpc",
                "bind fd@0 proto h2",
                "default_backend servers",
                "backend servers",
                "balance roundrobin",
                "server A 127.0.0.1:1001 proto h2",
                "server B 127.0.0.1:1002 proto h2",
            ]
        );
    }
}
