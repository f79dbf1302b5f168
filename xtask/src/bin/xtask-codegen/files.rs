//! Directories of generated files: comparing them, writing them, finding their sources.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The contents of generated files by file name.
pub(crate) type Generated = BTreeMap<String, Vec<u8>>;

/// The names of the files in `dir` that are missing, different or not generated any more.
pub(crate) fn differing(dir: &Path, generated: &Generated) -> Result<Vec<String>> {
    let mut names: BTreeSet<String> = left_over(dir, generated)?.into_iter().collect();
    for (name, content) in generated {
        if fs::read(dir.join(name)).ok().as_ref() != Some(content) {
            names.insert(name.clone());
        }
    }
    Ok(names.into_iter().collect())
}

/// Makes `dir` contain exactly the generated files. Files that are up to date are not written, so
/// that cargo does not rebuild because of them.
pub(crate) fn write(dir: &Path, generated: &Generated) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    for name in differing(dir, generated)? {
        let path = dir.join(&name);
        match generated.get(&name) {
            Some(content) => fs::write(&path, content),
            None => fs::remove_file(&path),
        }
        .with_context(|| format!("cannot update {}", path.display()))?;
    }
    Ok(())
}

/// The `.proto` files directly in `dir`, in a stable order.
pub(crate) fn protos_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut protos: Vec<PathBuf> = names_in(dir)?
        .into_iter()
        .map(|name| dir.join(name))
        .filter(|path| path.extension() == Some(OsStr::new("proto")))
        .collect();
    protos.sort();
    Ok(protos)
}

fn left_over(dir: &Path, generated: &Generated) -> Result<Vec<String>> {
    let mut names = names_in(dir)?;
    names.retain(|name| !generated.contains_key(name));
    Ok(names)
}

/// The names in `dir`; none if there is no such directory.
fn names_in(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", dir.display())),
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}
