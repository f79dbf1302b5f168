//! Files that only their owner reads, and that are replaced as a whole.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use data_encoding::HEXLOWER;

/// Replaces a file as a whole. A new file is for its owner only; an old one keeps its owner and mode. A symbolic link
/// stays: what it leads to is replaced.
pub(crate) fn write(file: &Path, contents: &[u8]) -> Result<()> {
    let target = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let temporary = temporary(&target)?;
    let written = replace(&temporary, &target, contents);
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written.with_context(|| format!("cannot write {}", file.display()))
}

/// Alters the text of a file, if `alter` returns a new one. Other processes that do so take turns. An absent file is
/// empty.
pub(crate) fn edit<T>(
    file: &Path,
    alter: impl FnOnce(String) -> Result<(Option<String>, T)>,
) -> Result<T> {
    let _turn = lock(file)?;
    let text = match std::fs::read(file) {
        Ok(bytes) => {
            String::from_utf8(bytes).map_err(|_| anyhow!("{} is not text", file.display()))?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", file.display()));
        }
    };
    let (altered, result) = alter(text)?;
    if let Some(text) = altered {
        write(file, text.as_bytes())?;
    }
    Ok(result)
}

/// A name beside a file, for its next contents.
fn temporary(target: &Path) -> Result<PathBuf> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| anyhow!("no randomness: {error}"))?;
    let mut name = OsString::from(".");
    name.push(target.file_name().context("not the name of a file")?);
    name.push(format!(".{}", HEXLOWER.encode(&random)));
    Ok(target.with_file_name(name))
}

fn replace(temporary: &Path, target: &Path, contents: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(temporary)?;
    #[cfg(unix)]
    if let Ok(old) = std::fs::metadata(target) {
        use std::os::unix::fs::{MetadataExt, fchown};
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.set_permissions(old.permissions())?;
    }
    file.write_all(contents)?;
    file.sync_all()?;
    std::fs::rename(temporary, target)?;
    // The new name must outlive a loss of power too.
    #[cfg(unix)]
    File::open(directory(target))?.sync_all()?;
    Ok(())
}

/// Locks the directory of a file: a lock of the file itself would not outlive its replacement.
#[cfg(unix)]
fn lock(file: &Path) -> Result<File> {
    let target = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let directory = directory(&target);
    let lock = || -> io::Result<File> {
        let locked = File::open(directory)?;
        rustix::fs::flock(&locked, rustix::fs::FlockOperation::LockExclusive)?;
        Ok(locked)
    };
    lock().with_context(|| format!("cannot lock {}", directory.display()))
}

#[cfg(not(unix))]
fn lock(_: &Path) -> Result<()> {
    Ok(())
}

#[cfg(unix)]
fn directory(file: &Path) -> &Path {
    let parent = file.parent().filter(|path| !path.as_os_str().is_empty());
    parent.unwrap_or(".".as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_at_once_are_all_kept() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let file = dir.path().join("numbers");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let add = |text: String| Ok((Some(text + "line\n"), ()));
                    edit(&file, add).expect("written");
                });
            }
        });
        let text = std::fs::read_to_string(&file).expect("read");
        assert_eq!(text.lines().count(), 8);
        assert_eq!(std::fs::read_dir(dir.path()).expect("read").count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_is_private_and_an_old_one_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::TempDir::new().expect("a directory");
        let file = dir.path().join("secret");
        let mode = || {
            std::fs::metadata(&file)
                .expect("there")
                .permissions()
                .mode()
                & 0o777
        };
        write(&file, b"1").expect("written");
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).expect("set");
        write(&file, b"2").expect("written");
        assert_eq!(mode(), 0o640);
    }
}
