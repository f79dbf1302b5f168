//! The token file: a line `NAME HASH` for each token, where HASH is the SHA-256 of the token in hexadecimal.
//!
//! Lines that begin with # and blank lines are ignored. A name may have several lines.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use data_encoding::HEXLOWER_PERMISSIVE;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The names of tokens by their hashes.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    /// By the first eight bytes of the hash. The rest is compared in constant time.
    by_prefix: HashMap<[u8; 8], Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    hash: [u8; 32],
    name: Arc<str>,
}

impl Tokens {
    /// Parses a token file. Errors name the line.
    pub(crate) fn parse(text: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(text).context("the token file is not text")?;
        let mut tokens = Self::default();
        for (number, line) in text.lines().enumerate() {
            let entry = parse_line(line).with_context(|| format!("line {}", number + 1))?;
            let Some((name, hash)) = entry else {
                continue;
            };
            if tokens.name(&hash).is_some_and(|other| **other != *name) {
                bail!("line {}: the token has another name already", number + 1);
            }
            let entries = tokens.by_prefix.entry(prefix(&hash)).or_default();
            entries.push(Entry {
                hash,
                name: name.into(),
            });
        }
        Ok(tokens)
    }

    /// The name of the token with a hash.
    pub(crate) fn name(&self, hash: &[u8; 32]) -> Option<&Arc<str>> {
        let entries = self.by_prefix.get(&prefix(hash))?;
        let entry = entries
            .iter()
            .find(|entry| bool::from(entry.hash.ct_eq(hash)))?;
        Some(&entry.name)
    }
}

/// The SHA-256 of a token.
pub(crate) fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The name and the hash of a line. `None`: a comment or a blank line.
pub(crate) fn parse_line(line: &str) -> Result<Option<(&str, [u8; 32])>> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    // The line is not quoted: a token may have been put there by mistake.
    let (name, hash) = line
        .rsplit_once(char::is_whitespace)
        .context("a line is NAME HASH")?;
    let hash = HEXLOWER_PERMISSIVE.decode(hash.as_bytes()).ok();
    let hash = hash.and_then(|hash| hash.try_into().ok());
    let hash = hash.context("the hash is not a SHA-256 of 64 hexadecimal digits")?;
    Ok(Some((name.trim(), hash)))
}

fn prefix(hash: &[u8; 32]) -> [u8; 8] {
    let mut prefix = [0; 8];
    prefix.copy_from_slice(&hash[..8]);
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    fn line(name: &str, token: &str) -> String {
        format!("{name} {}", HEXLOWER.encode(&hash(token)))
    }

    #[test]
    fn tokens_are_found_by_their_hash() {
        let text = format!(
            "# two tokens of one name\n\n{}\n{}\n  {}\r\n",
            line("alice", "a"),
            line("alice", "b"),
            line("device 7", "c")
        );
        let tokens = Tokens::parse(text.as_bytes()).expect("legal");
        for (token, name) in [("a", "alice"), ("b", "alice"), ("c", "device 7")] {
            assert_eq!(tokens.name(&hash(token)).map(|name| &**name), Some(name));
        }
        assert_eq!(tokens.name(&hash("d")), None);
    }

    #[test]
    fn a_mistake_names_the_line_and_not_its_contents() {
        for text in ["\nalice tnl_secret", "\ntnl_secret", "\nalice abcd"] {
            let error = format!(
                "{:#}",
                Tokens::parse(text.as_bytes()).expect_err("a mistake")
            );
            assert!(
                error.contains("line 2") && !error.contains("secret"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_token_has_one_name() {
        let text = format!("{}\n{}", line("alice", "a"), line("bob", "a"));
        assert!(Tokens::parse(text.as_bytes()).is_err());
    }
}
