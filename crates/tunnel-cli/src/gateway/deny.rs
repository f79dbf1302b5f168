//! The keys that are denied, and the file that keeps them.

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tonic::Status;

use crate::private_file;

/// A key that may neither open tunnels nor be called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Denial {
    pub(crate) key: String,
    /// Why. May be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    /// Until when. `None`: until the key is allowed.
    #[serde(default, with = "rfc3339", skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<SystemTime>,
    /// Who denied it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) by: String,
    #[serde(default, with = "rfc3339", skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<SystemTime>,
}

impl Denial {
    fn is_over(&self, now: SystemTime) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// The status for the device and its callers.
    pub(crate) fn status(&self) -> Status {
        let Self { key, reason, .. } = self;
        Status::permission_denied(match reason.is_empty() {
            true => format!("{key:?} is denied"),
            false => format!("{key:?} is denied: {reason}"),
        })
    }
}

/// The keys that may neither open tunnels nor be called.
#[derive(Debug, Default)]
pub(crate) struct DenyList {
    denials: RwLock<HashMap<String, Denial>>,
    /// Locked while the file is written.
    file: Option<Mutex<PathBuf>>,
}

/// The content of the file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(default)]
    denied: Vec<Denial>,
}

impl DenyList {
    /// The list that a file keeps, which need not exist yet. Without a file the list is empty, and is forgotten.
    pub(crate) fn open(file: Option<&Path>) -> Result<Self> {
        let Some(path) = file else {
            return Ok(Self::default());
        };
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let content: Content =
            toml::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
        let denials = content.denied.into_iter().map(|d| (d.key.clone(), d));
        Ok(Self {
            denials: RwLock::new(denials.collect()),
            file: Some(Mutex::new(path.to_owned())),
        })
    }

    /// Whether a key may open tunnels and be called.
    ///
    /// # Errors
    ///
    /// PERMISSION_DENIED, with the reason.
    pub(crate) fn check(&self, key: &str) -> Result<(), Status> {
        let denials = self.denials.read().unwrap_or_else(PoisonError::into_inner);
        match denials.get(key) {
            Some(denial) if !denial.is_over(SystemTime::now()) => Err(denial.status()),
            _ => Ok(()),
        }
    }

    /// Denies a key. An earlier denial of it is replaced.
    ///
    /// # Errors
    ///
    /// The file could not be written. The key is denied all the same, until the gateway stops.
    pub(crate) fn deny(&self, denial: Denial) -> Result<()> {
        self.change(|denials| {
            denials.insert(denial.key.clone(), denial);
        });
        self.save()
    }

    /// Takes a denial back. Returns whether the key was denied.
    ///
    /// # Errors
    ///
    /// The file could not be written. The key is allowed all the same, until the gateway stops.
    pub(crate) fn allow(&self, key: &str) -> Result<bool> {
        let was_denied = self.change(|denials| denials.remove(key).is_some());
        if was_denied {
            self.save()?;
        }
        Ok(was_denied)
    }

    /// The denials by key, without those that are over.
    pub(crate) fn by_key(&self) -> BTreeMap<String, Denial> {
        let now = SystemTime::now();
        let denials = self.denials.read().unwrap_or_else(PoisonError::into_inner);
        let denials = denials.iter().filter(|(_, denial)| !denial.is_over(now));
        denials
            .map(|(key, denial)| (key.clone(), denial.clone()))
            .collect()
    }

    /// The number of denials, without those that are over.
    pub(crate) fn count(&self) -> usize {
        let now = SystemTime::now();
        let denials = self.denials.read().unwrap_or_else(PoisonError::into_inner);
        denials
            .values()
            .filter(|denial| !denial.is_over(now))
            .count()
    }

    /// The denials in the order of their keys.
    pub(crate) fn list(&self) -> Vec<Denial> {
        self.by_key().into_values().collect()
    }

    /// Changes the denials, without those that are over.
    fn change<T>(&self, change: impl FnOnce(&mut HashMap<String, Denial>) -> T) -> T {
        let now = SystemTime::now();
        let mut denials = self.denials.write().unwrap_or_else(PoisonError::into_inner);
        denials.retain(|_, denial| !denial.is_over(now));
        change(&mut denials)
    }

    /// Writes the file. Writers queue, and each writes the denials of the moment it begins.
    fn save(&self) -> Result<()> {
        let Some(path) = &self.file else {
            return Ok(());
        };
        let path = path.lock().unwrap_or_else(PoisonError::into_inner);
        let content = Content {
            denied: self.list(),
        };
        let text = toml::to_string(&content)?;
        private_file::write(&path, text.as_bytes())
    }
}

/// Times in the file.
mod rfc3339 {
    use std::time::SystemTime;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => to.collect_str(&humantime::format_rfc3339(*time)),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_rfc3339(&text)
            .map(Some)
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn denial(key: &str, until: Option<SystemTime>) -> Denial {
        Denial {
            key: key.to_owned(),
            reason: "stolen\n\"twice\"".to_owned(),
            until,
            by: "ops".to_owned(),
            since: Some(SystemTime::now()),
        }
    }

    #[test]
    fn denials_survive_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("denied.toml");
        let open = || DenyList::open(Some(&path)).expect("readable");
        let later = SystemTime::now() + Duration::from_secs(60);
        let list = open();
        list.deny(denial("b", None)).expect("writable");
        list.deny(denial("a", Some(later))).expect("writable");
        list.deny(denial("c", None)).expect("writable");
        assert!(list.allow("c").expect("writable"));
        assert!(!list.allow("c").expect("writable"));
        assert_eq!(open().list(), list.list());
        let status = open().check("a").expect_err("denied");
        assert_eq!(status.message(), "\"a\" is denied: stolen\n\"twice\"");
        assert!(open().check("c").is_ok());
        let files = directory.path().read_dir().expect("a directory").count();
        assert_eq!(files, 1, "no temporary file is left");
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_private_and_a_link_to_it_stays() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a directory");
        let (link, file) = (directory.path().join("link"), directory.path().join("file"));
        std::fs::write(&file, "").expect("writable");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).expect("set");
        std::os::unix::fs::symlink(&file, &link).expect("linked");
        let new = directory.path().join("new");
        for path in [&link, &new] {
            let list = DenyList::open(Some(path)).expect("readable");
            list.deny(denial("a", None)).expect("writable");
        }
        let metadata = std::fs::symlink_metadata(&link).expect("there");
        assert!(metadata.is_symlink());
        let mode = |file| {
            let metadata = std::fs::metadata(file).expect("there");
            metadata.permissions().mode() & 0o777
        };
        assert_eq!((mode(&file), mode(&new)), (0o640, 0o600));
    }

    #[test]
    fn a_denial_ends_at_its_time() {
        let list = DenyList::default();
        list.deny(denial("a", Some(SystemTime::now())))
            .expect("no file");
        assert!(list.check("a").is_ok() && list.list().is_empty());
        assert!(!list.allow("a").expect("no file"));
    }

    #[test]
    fn a_damaged_file_stops_the_gateway_from_starting() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "[[denied]]\nname = 1").expect("writable");
        let error = DenyList::open(Some(file.path())).expect_err("damaged");
        assert!(error.to_string().contains("is damaged"), "{error:#}");
    }

    #[test]
    fn a_denial_that_cannot_be_saved_holds() {
        let list = DenyList::open(Some(Path::new("/nowhere/at/all"))).expect("no file yet");
        assert!(list.deny(denial("a", None)).is_err());
        assert!(list.check("a").is_err());
    }
}
