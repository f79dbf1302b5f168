//! The access file: which client may call which keys and methods.
//!
//! ```toml
//! [[allow]]
//! who = ["alice", "team-*"]
//! keys = ["berlin-*"]
//! methods = ["/pkg.Service/*"]   # default: all
//!
//! [[allow]]
//! anonymous = true               # clients without an identity; `who` never matches them, not even "*"
//! keys = ["public"]
//! ```
//!
//! What no rule allows is refused. An empty file refuses everything.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use globset::{Glob, GlobMatcher};
use serde::Deserialize;

use crate::identity::Identity;
use crate::reload::Reloadable;

/// Who may call what. Without a file everybody may call everything.
#[derive(Debug, Default)]
pub(crate) struct AccessFile {
    rules: Option<Reloadable<Rules>>,
}

impl AccessFile {
    /// Reads the file. A mistake names the file, the line and the key.
    pub(crate) fn open(file: Option<&Path>) -> Result<Self> {
        let Some(file) = file else {
            return Ok(Self::default());
        };
        let name = file.display().to_string();
        let rules = Reloadable::open(vec![file.to_owned()], move |contents| {
            let text =
                std::str::from_utf8(&contents[0]).with_context(|| format!("{name} is not text"))?;
            toml::from_str(text).map_err(|error| anyhow!("{name}: {error}"))
        })?;
        Ok(Self { rules: Some(rules) })
    }

    /// Whether there is a file.
    pub(crate) fn is_some(&self) -> bool {
        self.rules.is_some()
    }

    /// Whether somebody may call a method (`/package.Service/Method`) of a key.
    pub(crate) fn allows(&self, who: Option<&Identity>, key: &str, method: &str) -> bool {
        let Some(rules) = &self.rules else {
            return true;
        };
        let rules = rules.get();
        let mut rules = rules.allow.iter();
        rules.any(|rule| rule.allows(who, key, method))
    }

    /// Reads the file again. Returns whether it changed.
    ///
    /// # Errors
    ///
    /// The file is illegal. The old rules stay in use.
    pub(crate) fn reload(&self) -> Result<bool> {
        self.rules.as_ref().map_or(Ok(false), Reloadable::reload)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    #[serde(default)]
    allow: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    who: Vec<Pattern>,
    /// Whether clients without an identity match.
    #[serde(default)]
    anonymous: bool,
    keys: Vec<Pattern>,
    methods: Option<Vec<MethodPattern>>,
}

impl Rule {
    fn allows(&self, who: Option<&Identity>, key: &str, method: &str) -> bool {
        let who = match who {
            Some(who) => self
                .who
                .iter()
                .any(|pattern| pattern.0.is_match(&*who.name)),
            None => self.anonymous,
        };
        let methods = self.methods.as_ref();
        who && self.keys.iter().any(|pattern| pattern.0.is_match(key))
            && methods.is_none_or(|methods| methods.iter().any(|m| m.0.is_match(method)))
    }
}

/// A pattern: `*`, `?`, `[a-z]` and `{a,b}`. `*` matches `/` too.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Pattern(GlobMatcher);

impl TryFrom<String> for Pattern {
    type Error = globset::Error;

    fn try_from(pattern: String) -> Result<Self, globset::Error> {
        Ok(Self(Glob::new(&pattern)?.compile_matcher()))
    }
}

/// A pattern of the paths of methods.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct MethodPattern(GlobMatcher);

impl TryFrom<String> for MethodPattern {
    type Error = String;

    fn try_from(pattern: String) -> Result<Self, String> {
        if !pattern.starts_with(['/', '*']) {
            return Err(format!(
                "{pattern:?} does not begin with / as /package.Service/Method"
            ));
        }
        let pattern = Pattern::try_from(pattern).map_err(|error| error.to_string())?;
        Ok(Self(pattern.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Proof;

    fn open(text: &str) -> (tempfile::NamedTempFile, Result<AccessFile>) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        let access = AccessFile::open(Some(file.path()));
        (file, access)
    }

    fn named(name: &str) -> Identity {
        Identity {
            name: name.into(),
            proof: Proof::Claimed,
        }
    }

    #[test]
    fn without_a_file_everything_is_allowed() {
        let access = AccessFile::open(None).expect("no file");
        assert!(access.allows(None, "key", "/a.B/C"));
        assert!(!access.reload().expect("nothing to reload"));
    }

    #[test]
    fn a_rule_allows_by_name_key_and_method() {
        let (_file, access) = open(
            "[[allow]]\nwho = [\"alice\", \"team-*\"]\nkeys = [\"berlin-*\"]\nmethods = [\"/a.B/*\"]",
        );
        let access = access.expect("legal");
        let allows = |name, key, method| access.allows(Some(&named(name)), key, method);
        assert!(allows("alice", "berlin-7", "/a.B/C"));
        assert!(allows("team-7", "berlin-7", "/a.B/C"));
        assert!(!allows("bob", "berlin-7", "/a.B/C"));
        assert!(!allows("ALICE", "berlin-7", "/a.B/C"));
        assert!(!allows("alice", "paris-7", "/a.B/C"));
        assert!(!allows("alice", "berlin-7", "/a.Bad/C"));
    }

    #[test]
    fn anonymous_clients_match_only_rules_for_them() {
        let (_file, access) = open(
            "[[allow]]\nwho = [\"*\"]\nkeys = [\"a\"]\n[[allow]]\nanonymous = true\nkeys = [\"b\"]",
        );
        let access = access.expect("legal");
        assert!(!access.allows(None, "a", "/a.B/C"));
        assert!(access.allows(None, "b", "/a.B/C"));
        assert!(access.allows(Some(&named("alice")), "a", "/a.B/C"));
        assert!(!access.allows(Some(&named("alice")), "b", "/a.B/C"));
    }

    #[test]
    fn an_empty_file_allows_nothing() {
        let (_file, access) = open("");
        let access = access.expect("legal");
        assert!(!access.allows(Some(&named("alice")), "a", "/a.B/C"));
    }

    #[test]
    fn a_mistake_names_the_file_the_line_and_the_key() {
        let mistakes = [
            ("[[allow]]\nwhoo = [\"a\"]\nkeys = []", "whoo"),
            ("[[allow]]\nkeys = [\"[\"]", "keys"),
            ("[[allow]]\nmethods = [\"a.B/C\"]\nkeys = []", "a.B/C"),
        ];
        for (text, key) in mistakes {
            let (file, access) = open(text);
            let error = format!("{:#}", access.expect_err("a mistake"));
            let name = file.path().display().to_string();
            assert!(error.contains(&name), "{error}");
            assert!(error.contains("line 2") && error.contains(key), "{error}");
        }
    }

    #[test]
    fn a_broken_file_keeps_the_old_rules() {
        let (file, access) = open("[[allow]]\nwho = [\"alice\"]\nkeys = [\"*\"]");
        let access = access.expect("legal");
        std::fs::write(file.path(), "[[allow]]").expect("written");
        assert!(access.reload().is_err());
        assert!(access.allows(Some(&named("alice")), "a", "/a.B/C"));
        std::fs::write(file.path(), "").expect("written");
        assert!(access.reload().expect("legal"));
        assert!(!access.allows(Some(&named("alice")), "a", "/a.B/C"));
    }
}
