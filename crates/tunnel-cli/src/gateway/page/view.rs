//! Which devices a request wants to see, and the addresses of other pages.

use std::fmt::Write as _;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tonic::Status;

use crate::admin::api;

/// How many devices a page shows.
const PAGE: i32 = 50;

/// How many pages one can go back. They are named by the address of the page.
const MAX_TRAIL: usize = 100;

/// The states that can be asked for, with their names in addresses.
pub(super) const STATES: [(&str, api::State); 5] = [
    ("", api::State::Unspecified),
    ("connected", api::State::Connected),
    ("draining", api::State::Draining),
    ("away", api::State::Away),
    ("denied", api::State::Denied),
];

/// The query of a request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct View {
    /// A glob, or a part of keys.
    pub(super) q: String,
    pub(super) state: String,
    /// The token of the page. Empty for the first one.
    after: String,
    /// The tokens of the pages before it, but for the first one.
    trail: String,
}

/// The glob for what somebody searches for.
fn glob(text: &str) -> String {
    let text = text.trim();
    let is_glob = |c| matches!(c, '*' | '?' | '[' | '{' | '\\');
    match text.is_empty() || text.contains(is_glob) {
        true => text.to_owned(),
        false => format!("*{}*", globset::escape(text)),
    }
}

impl View {
    /// The request for the admin API.
    pub(super) fn request(&self) -> Result<api::ListRequest, Status> {
        let state = STATES.iter().find(|(name, _)| *name == self.state);
        let (_, state) = state.ok_or_else(|| Status::invalid_argument("state: unknown"))?;
        Ok(api::ListRequest {
            page_size: PAGE,
            page_token: self.after.clone(),
            filter: glob(&self.q),
            state: (*state).into(),
            keys: Vec::new(),
        })
    }

    pub(super) fn is_first(&self) -> bool {
        self.after.is_empty()
    }

    fn address(&self, after: &str, trail: &str) -> String {
        let mut address = String::from("/");
        let parts = [
            ("q", self.q.as_str()),
            ("state", &self.state),
            ("after", after),
            ("trail", trail),
        ];
        let mut separator = '?';
        for (name, value) in parts.into_iter().filter(|(_, value)| !value.is_empty()) {
            let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
            // Cannot fail.
            let _ = write!(address, "{separator}{name}={value}");
            separator = '&';
        }
        address
    }

    /// The address of the first page.
    pub(super) fn first(&self) -> String {
        self.address("", "")
    }

    /// The address of the page before.
    pub(super) fn previous(&self) -> String {
        match self.trail.rsplit_once('.') {
            Some((trail, after)) => self.address(after, trail),
            None => self.address(&self.trail, ""),
        }
    }

    /// The address of the page with this token, which is the next one.
    pub(super) fn next(&self, token: &str) -> String {
        let before: Vec<_> = [self.trail.as_str(), &self.after]
            .into_iter()
            .flat_map(|tokens| tokens.split('.'))
            .filter(|token| !token.is_empty())
            .collect();
        let kept = before.len().saturating_sub(MAX_TRAIL);
        self.address(token, &before[kept..].join("."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_searches_for_a_part_or_with_a_glob() {
        assert_eq!(glob(" berlin "), "*berlin*");
        assert_eq!(glob("berlin-*"), "berlin-*");
        assert_eq!(glob("a]"), "*a[]]*");
        assert_eq!(glob(""), "");
    }

    #[test]
    fn the_way_back_leads_over_all_pages() {
        let mut view = View {
            q: "a&b".to_owned(),
            ..View::default()
        };
        assert_eq!(view.next("t1"), "/?q=a%26b&after=t1");
        view.after = "t1".to_owned();
        assert_eq!(view.previous(), view.first());
        assert_eq!(view.next("t2"), "/?q=a%26b&after=t2&trail=t1");
        view = View {
            after: "t3".to_owned(),
            trail: "t1.t2".to_owned(),
            ..view
        };
        assert_eq!(view.previous(), "/?q=a%26b&after=t2&trail=t1");
        assert_eq!(view.first(), "/?q=a%26b");
    }
}
