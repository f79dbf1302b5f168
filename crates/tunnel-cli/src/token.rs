//! `tunnel token`: makes and revokes opaque bearer tokens.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use clap::Subcommand;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};

use crate::identity::tokens::{Tokens, hash, parse_line};
use crate::private_file;

/// The beginning of each token, by which scanners find tokens that were published by mistake.
const PREFIX: &str = "tnl_";

/// Make and revoke bearer tokens.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Print a new token. It is printed once: the file keeps only its hash.
    New {
        /// Whose token: the name of a client, or the key of an agent.
        name: String,
        /// The token file to add the token to. It is made if it is absent. Default: print the line for it.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Remove all tokens of a name from a token file. A running gateway notices within a second.
    Revoke {
        /// Whose tokens.
        name: String,
        /// The token file.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match &args.command {
        Command::New { name, file } => {
            let token = new_token()?;
            let line = line(name, &token)?;
            match file {
                Some(file) => {
                    append(file, &line)?;
                    eprintln!("added {name:?} to {}", file.display());
                }
                None => eprintln!("add this line to the token file of the gateway:\n{line}"),
            }
            println!("{token}");
        }
        Command::Revoke { name, file } => match remove(file, name)? {
            0 => bail!("{} has no token of {name:?}", file.display()),
            1 => eprintln!("removed one token of {name:?}"),
            n => eprintln!("removed {n} tokens of {name:?}"),
        },
    }
    Ok(ExitCode::SUCCESS)
}

/// A random token of 256 bits.
fn new_token() -> Result<String> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| anyhow!("no randomness: {error}"))?;
    Ok(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&secret)))
}

/// The line of a token.
fn line(name: &str, token: &str) -> Result<String> {
    let name = name.trim();
    if name.is_empty() || name.starts_with('#') || name.contains(char::is_control) {
        bail!("{name:?} cannot be the name of a token");
    }
    Ok(format!("{name} {}", HEXLOWER.encode(&hash(token))))
}

/// Adds a line to a token file. A new file is for its owner only.
fn append(file: &Path, line: &str) -> Result<()> {
    private_file::edit(file, |mut text| {
        Tokens::parse(text.as_bytes()).with_context(|| file.display().to_string())?;
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Ok((Some(text + line + "\n"), ()))
    })
}

/// Removes the lines of a name. Returns how many.
fn remove(file: &Path, name: &str) -> Result<usize> {
    private_file::edit(file, |text| {
        let (mut kept, mut removed) = (String::new(), 0);
        for line in text.split_inclusive('\n') {
            // Lines with a mistake stay: the gateway reports them.
            match parse_line(line) {
                Ok(Some((other, _))) if other == name.trim() => removed += 1,
                _ => kept.push_str(line),
            }
        }
        Ok(((removed > 0).then_some(kept), removed))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_token_is_known_until_it_is_revoked() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let file = dir.path().join("tokens");
        let (first, second) = (new_token().expect("random"), new_token().expect("random"));
        assert_ne!(first, second);
        assert_eq!(first.len(), 47);
        append(&file, &line("alice", &first).expect("legal")).expect("written");
        append(&file, &line("device 7", &second).expect("legal")).expect("written");
        let known = || Tokens::parse(&std::fs::read(&file).expect("read")).expect("legal");
        let name = |token: &str| known().name(&hash(token)).map(|name| name.to_string());
        assert_eq!(name(&first).as_deref(), Some("alice"));
        assert_eq!(name(&second).as_deref(), Some("device 7"));
        assert_eq!(remove(&file, "alice").expect("written"), 1);
        assert_eq!(remove(&file, "alice").expect("nothing to do"), 0);
        assert_eq!(name(&first), None);
        assert_eq!(name(&second).as_deref(), Some("device 7"));
    }

    #[test]
    fn comments_and_the_end_of_the_last_line_are_kept() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let file = dir.path().join("tokens");
        let old = format!("# ours\n\n{}", line("bob", "b").expect("legal"));
        std::fs::write(&file, &old).expect("written");
        append(&file, &line("alice", "a").expect("legal")).expect("written");
        remove(&file, "alice").expect("written");
        let text = std::fs::read_to_string(&file).expect("read");
        assert_eq!(text, format!("{old}\n"));
    }

    #[test]
    fn names_that_a_line_cannot_hold_are_refused() {
        for name in ["", " ", "# comment", "two\nlines"] {
            assert!(line(name, "a").is_err(), "{name:?}");
        }
    }
}
