//! Settings from flags, the environment and a TOML file: one structure for all three.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Adds to `flags` what a file says and they do not. A mistake names the file, the line and the key.
///
/// `T` has optional fields that are not serialized when they are absent, and denies unknown fields.
pub(crate) fn with_file<T: Serialize + DeserializeOwned>(flags: &T, file: &Path) -> Result<T> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    // By itself first, so that an error has the place in the file.
    let _: T = toml::from_str(&text).map_err(|error| anyhow!("{}: {error}", file.display()))?;
    let mut merged: toml::Table = toml::from_str(&text)?;
    merged.extend(toml::Table::try_from(flags)?);
    Ok(merged.try_into()?)
}

/// Settings as a TOML file with what each means. Those that are absent are comments.
///
/// `T` has a flag for each field, of the same name.
pub(crate) fn printed<T: Serialize + clap::Args>(settings: &T) -> Result<String> {
    let values = toml::Table::try_from(settings)?;
    let mut text = String::new();
    for flag in T::augment_args(clap::Command::new("settings")).get_arguments() {
        let Some(name) = flag.get_long() else {
            continue;
        };
        let help = flag.get_long_help().or(flag.get_help());
        for line in help.map(ToString::to_string).unwrap_or_default().lines() {
            text += &format!("# {line}\n");
        }
        match values.get(name) {
            Some(value) => text += &format!("{name} = {value}\n\n"),
            None => text += &format!("# {name} =\n\n"),
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
    struct Settings {
        #[serde(skip_serializing_if = "Option::is_none")]
        listen_at: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
    }

    fn merged(flags: &Settings, text: &str) -> Result<Settings> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), text)?;
        with_file(flags, file.path())
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let flags = Settings {
            limit: Some(1),
            ..Settings::default()
        };
        let settings = merged(&flags, "limit = 2\nlisten-at = \"here\"").expect("legal");
        assert_eq!(settings.limit, Some(1));
        assert_eq!(settings.listen_at.as_deref(), Some("here"));
    }

    #[test]
    fn a_mistake_names_the_line_and_the_key() {
        for (text, key) in [("\nlimt = 2", "limt"), ("\nlimit = \"two\"", "limit")] {
            let error = merged(&Settings::default(), text).expect_err("a mistake");
            let error = error.to_string();
            assert!(error.contains("line 2") && error.contains(key), "{error}");
        }
    }
}
