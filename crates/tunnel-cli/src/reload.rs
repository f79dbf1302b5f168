//! Files that are read again when their contents change, or at SIGHUP.
//!
//! Contents are compared, not times: Kubernetes replaces files by symbolic links. What a broken file would replace
//! stays in use.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Result;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::connect::read;

/// How often files are read.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How long contents must stay as they are before they count.
const SETTLE_TIME: Duration = Duration::from_millis(50);

type Parse<T> = Box<dyn Fn(&[Vec<u8>]) -> Result<T> + Send + Sync>;

/// A value that is parsed from files.
pub(crate) struct Reloadable<T> {
    files: Vec<PathBuf>,
    parse: Parse<T>,
    /// The digest of the contents of the files in use. Locked while files are read, so that reloads take turns.
    digest: Mutex<[u8; 32]>,
    value: RwLock<Arc<T>>,
}

impl<T> fmt::Debug for Reloadable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Reloadable");
        debug.field("files", &self.files).finish_non_exhaustive()
    }
}

impl<T> Reloadable<T> {
    /// Reads the files. `parse` gets their contents in the same order.
    pub(crate) fn open(
        files: Vec<PathBuf>,
        parse: impl Fn(&[Vec<u8>]) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Self> {
        let (contents, digest) = read_all(&files)?;
        Ok(Self {
            value: RwLock::new(Arc::new(parse(&contents)?)),
            digest: Mutex::new(digest),
            parse: Box::new(parse),
            files,
        })
    }

    /// The value in use.
    pub(crate) fn get(&self) -> Arc<T> {
        let value = self.value.read().unwrap_or_else(PoisonError::into_inner);
        value.clone()
    }

    /// Reads the files again. Returns whether they changed.
    ///
    /// # Errors
    ///
    /// A file cannot be read or parsed. The old value stays in use.
    pub(crate) fn reload(&self) -> Result<bool> {
        let mut digest = self.digest.lock().unwrap_or_else(PoisonError::into_inner);
        let (contents, new_digest) = read_all(&self.files)?;
        if new_digest == *digest {
            return Ok(false);
        }
        // Somebody may be writing: half a file may be a legal one.
        std::thread::sleep(SETTLE_TIME);
        if read_all(&self.files)?.1 != new_digest {
            return Ok(false);
        }
        let value = Arc::new((self.parse)(&contents)?);
        *self.value.write().unwrap_or_else(PoisonError::into_inner) = value;
        *digest = new_digest;
        Ok(true)
    }
}

fn read_all(files: &[PathBuf]) -> Result<(Vec<Vec<u8>>, [u8; 32])> {
    let contents: Vec<_> = files.iter().map(|file| read(file)).collect::<Result<_>>()?;
    let mut digest = Sha256::new();
    for content in &contents {
        digest.update(Sha256::digest(content));
    }
    Ok((contents, digest.finalize().into()))
}

/// Reads something again. Returns whether it changed.
pub(crate) type Reload = Box<dyn Fn() -> Result<bool> + Send + Sync>;

/// Reloads what changes, each 500 ms and at SIGHUP.
pub(crate) struct Reloader {
    parts: Vec<Part>,
    changes: watch::Sender<u64>,
}

struct Part {
    name: String,
    reload: Reload,
    /// The error that was logged last.
    error: Option<String>,
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.parts.iter().map(|part| &part.name).collect();
        f.debug_struct("Reloader").field("parts", &names).finish()
    }
}

impl Reloader {
    /// A reloader of nothing.
    pub(crate) fn new() -> Self {
        Self {
            parts: Vec::new(),
            changes: watch::Sender::new(0),
        }
    }

    /// Adds a part. Its name is for the log.
    pub(crate) fn add(
        &mut self,
        name: &str,
        reload: impl Fn() -> Result<bool> + Send + Sync + 'static,
    ) {
        self.parts.push(Part {
            name: name.to_owned(),
            reload: Box::new(reload),
            error: None,
        });
    }

    /// A number that grows when a part has changed.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Reloads forever.
    ///
    /// # Errors
    ///
    /// The handler of SIGHUP cannot be installed.
    pub(crate) async fn run(mut self) -> Result<()> {
        let mut hangup = Hangup::new()?;
        loop {
            tokio::select! {
                () = hangup.recv() => tracing::info!("SIGHUP: reading the files again"),
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
            self = tokio::task::spawn_blocking(move || {
                self.reload_all();
                self
            })
            .await?;
        }
    }

    fn reload_all(&mut self) {
        let mut changed = false;
        for part in &mut self.parts {
            match (part.reload)() {
                Ok(false) => part.error = None,
                Ok(true) => {
                    part.error = None;
                    changed = true;
                    tracing::info!(part = part.name, "files were read again");
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    if part.error.as_ref() != Some(&error) {
                        tracing::error!(part = part.name, "the old one stays in use: {error}");
                        part.error = Some(error);
                    }
                }
            }
        }
        if changed {
            self.changes.send_modify(|number| *number += 1);
        }
    }
}

/// SIGHUP, where there is one.
pub(crate) struct Hangup {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl Hangup {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            signal: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?,
        })
    }

    pub(crate) async fn recv(&mut self) {
        #[cfg(unix)]
        if self.signal.recv().await.is_some() {
            return;
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    fn number(file: &std::path::Path) -> Reloadable<u32> {
        Reloadable::open(vec![file.to_owned()], |contents| {
            let text = std::str::from_utf8(&contents[0])?;
            text.parse().context("not a number")
        })
        .expect("a number")
    }

    #[test]
    fn a_value_is_parsed_again_only_when_the_contents_change() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "1").expect("written");
        let value = number(file.path());
        std::fs::write(file.path(), "1").expect("written");
        assert!(!value.reload().expect("legal"));
        std::fs::write(file.path(), "2").expect("written");
        assert!(value.reload().expect("legal"));
        assert_eq!(*value.get(), 2);
    }

    #[test]
    fn a_broken_or_absent_file_keeps_the_old_value() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "1").expect("written");
        let value = number(file.path());
        std::fs::write(file.path(), "one").expect("written");
        assert!(value.reload().is_err());
        assert!(value.reload().is_err());
        std::fs::remove_file(file.path()).expect("removed");
        assert!(value.reload().is_err());
        assert_eq!(*value.get(), 1);
        std::fs::write(file.path(), "1").expect("written");
        assert!(!value.reload().expect("as before"));
    }

    #[test]
    fn a_file_that_is_half_written_does_not_count() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "12").expect("written");
        let value = Arc::new(number(file.path()));
        std::fs::write(file.path(), "3").expect("half written");
        let reloaded = value.clone();
        let reloading = std::thread::spawn(move || reloaded.reload());
        std::thread::sleep(SETTLE_TIME / 2);
        std::fs::write(file.path(), "34").expect("written");
        assert!(!reloading.join().expect("no panic").expect("legal"));
        assert_eq!(*value.get(), 12);
        assert!(value.reload().expect("legal"));
        assert_eq!(*value.get(), 34);
    }

    #[tokio::test]
    async fn subscribers_hear_of_changes() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "1").expect("written");
        let value = Arc::new(number(file.path()));
        let mut reloader = Reloader::new();
        let reloaded = value.clone();
        reloader.add("the number", move || reloaded.reload());
        let mut changes = reloader.subscribe();
        let running = tokio::spawn(reloader.run());
        std::fs::write(file.path(), "2").expect("written");
        changes.changed().await.expect("running");
        assert_eq!((*value.get(), *changes.borrow()), (2, 1));
        running.abort();
    }
}
