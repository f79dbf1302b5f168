//! Which local server a call goes to: the one with the longest prefix of its service.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::{Context as _, Result, bail};
use futures::future::BoxFuture;
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;
use tunnel_client::ForwardTo;

use super::ports::Ports;
use super::target::{Address, Target};
use crate::tcp;

/// A value of `--to`: [PREFIX=]ADDRESS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// A package or a service; empty for all.
    prefix: String,
    address: Address,
}

impl Rule {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let is_name = |name: &str| {
            let legal = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            !name.is_empty() && name.chars().all(legal)
        };
        let (prefix, address) = match text.split_once('=') {
            Some((prefix, address)) if is_name(prefix) => (prefix.trim_matches('.'), address),
            _ => ("", text),
        };
        Ok(Self {
            prefix: prefix.to_owned(),
            address: Address::parse(address)?,
        })
    }

    /// The name and the address, if this is a TCP port. Without a name it is called by its number.
    fn port(&self) -> Option<(String, String)> {
        let Address::Tcp(address) = &self.address else {
            return None;
        };
        let number = address.rsplit(':').next().unwrap_or_default();
        let name = match self.prefix.as_str() {
            "" => number,
            prefix => prefix,
        };
        Some((name.to_owned(), address.clone()))
    }

    /// Whether the prefix is the service of a path, or a package around it.
    fn matches(&self, path: &str) -> bool {
        let service = path.trim_start_matches('/').split('/').next();
        let rest = service.and_then(|service| service.strip_prefix(self.prefix.as_str()));
        self.prefix.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.prefix.as_str() {
            "" => write!(f, "{}", self.address),
            prefix => write!(f, "{prefix} at {}", self.address),
        }
    }
}

/// Reads values of `--to`. The longest prefix comes first.
pub(crate) fn parse_rules<S: AsRef<str>>(texts: &[S]) -> Result<Vec<Rule>> {
    if texts.is_empty() {
        bail!("no local server: set --to HOST:PORT");
    }
    let rules = texts.iter().map(|text| {
        let text = text.as_ref();
        Rule::parse(text).with_context(|| format!("--to {text}"))
    });
    let mut rules = rules.collect::<Result<Vec<_>>>()?;
    rules.sort_by_key(|rule| std::cmp::Reverse(rule.prefix.len()));
    for (i, rule) in rules.iter().enumerate() {
        let same = |other: &&Rule| match (rule.port(), other.port()) {
            (None, None) => rule.prefix == other.prefix,
            (Some((name, _)), Some((other, _))) => name == other,
            _ => false,
        };
        if let Some(other) = rules[..i].iter().find(same) {
            bail!("--to: {other} and {rule} are for the same calls");
        }
    }
    Ok(rules)
}

/// Passes each call on to the local server that its service belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Router {
    targets: Arc<[(Rule, ForwardTo<Target>)]>,
    ports: Ports,
}

impl Router {
    /// `rules` as [`parse_rules`] returns them.
    pub(crate) fn new(rules: Vec<Rule>, ca: Option<&Path>) -> Result<Self> {
        let target = |rule: Rule| {
            let target = Target::new(&rule.address, ca)?;
            Ok((rule, ForwardTo::new(target)))
        };
        let ports = rules.iter().filter_map(Rule::port).collect();
        let calls = rules.into_iter().filter(|rule| rule.port().is_none());
        Ok(Self {
            targets: calls.map(target).collect::<Result<_>>()?,
            ports,
        })
    }
}

impl Service<http::Request<Body>> for Router {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path();
        if path.starts_with(tcp::PATH) {
            let called = self.ports.clone().call(request);
            return Box::pin(async { Ok(called.await) });
        }
        match self.targets.iter().find(|(rule, _)| rule.matches(path)) {
            Some((_, target)) => target.clone().call(request),
            None => {
                let message = format!("the agent exposes no server for {path}");
                let response = Status::unimplemented(message).into_http();
                Box::pin(async { Ok(response) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(rules: &[Rule], path: &str) -> Option<String> {
        let rule = rules.iter().find(|rule| rule.matches(path))?;
        Some(rule.address.to_string())
    }

    #[test]
    fn the_longest_prefix_of_whole_names_wins() {
        let rules = parse_rules(&["a.b=h:1", "h:2", "a.b.S=h:3"]).expect("legal");
        let chosen = |path| chosen(&rules, path).expect("there is a default");
        assert_eq!(chosen("/a.b.S/M"), "h:3");
        assert_eq!(chosen("/a.b.T/M"), "h:1");
        assert_eq!(chosen("/a.b.S2/M"), "h:1");
        assert_eq!(chosen("/a.bc.S/M"), "h:2");
        assert_eq!(chosen("/"), "h:2");
    }

    #[test]
    fn without_a_default_other_calls_go_nowhere() {
        let rules = parse_rules(&["a.S=unix:/x=y"]).expect("legal");
        assert_eq!(chosen(&rules, "/a.S/M").as_deref(), Some("unix:/x=y"));
        assert_eq!(chosen(&rules, "/b.S/M"), None);
    }

    #[test]
    fn two_servers_for_the_same_calls_are_a_mistake() {
        for texts in [
            ["h:1", "h:2"],
            ["a=h:1", "a.=h:2"],
            ["tcp:h:1", "tcp:g:1"],
            ["1=tcp:h:2", "tcp:h:1"],
        ] {
            assert!(parse_rules(&texts).is_err(), "{texts:?}");
        }
        assert!(parse_rules::<&str>(&[]).is_err());
    }
}
