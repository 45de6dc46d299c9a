//! What this machine saves and leaves out by itself: the `[backup]` part of its config.

use std::path::PathBuf;
use std::time::Duration;

use backhaul_archive::backup::excludes::{Excludes, Wishes, read_patterns};
use backhaul_archive::patterns::Case;
use backhaul_schedule::policy::units;
use serde::{Deserialize, Serialize};

use crate::hooks::Hooks;
use crate::stills::Still;

/// `[backup]` in `config.toml` (schemas/config/agent.json). What the command line says comes after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sources {
    /// Patterns as in gitignore(5).
    pub exclude: Vec<String>,
    /// The same, whatever the case of their letters.
    pub iexclude: Vec<String>,
    /// Files of patterns.
    pub exclude_file: Vec<PathBuf>,
    /// Names that mark a folder as not worth saving.
    pub exclude_if_present: Vec<String>,
    /// Leave out what is marked by `CACHEDIR.TAG`.
    pub exclude_caches: bool,
    /// Leave out larger files, as "2GiB".
    pub exclude_larger_than: Option<String>,
    /// Leave out what `chattr +d` marks.
    pub exclude_nodump: bool,
    /// Leave out what hardly anybody wants back.
    pub default_excludes: bool,
    /// Stay on the file systems of the paths.
    pub one_file_system: bool,
    /// Save from snapshots of the file systems, where there can be some.
    pub still: Still,
    /// A program with its arguments, run before each backup: if it fails, there is none.
    pub before: Vec<String>,
    /// One run after each, whatever it came to.
    pub after: Vec<String>,
    /// How long either may take, as "10m".
    pub hook_timeout: String,
}

impl Default for Sources {
    fn default() -> Self {
        let wishes = Wishes::default();
        Self {
            exclude: Vec::new(),
            iexclude: Vec::new(),
            exclude_file: Vec::new(),
            exclude_if_present: wishes.if_present,
            exclude_caches: wishes.caches,
            exclude_larger_than: None,
            exclude_nodump: wishes.nodump,
            default_excludes: wishes.defaults,
            one_file_system: false,
            still: Still::default(),
            before: Vec::new(),
            after: Vec::new(),
            hook_timeout: "10m".to_owned(),
        }
    }
}

impl Sources {
    /// Whether everything in it can be read, but for the files of patterns.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        Self { exclude_file: Vec::new(), ..self.clone() }.excludes()?;
        let timeout = &self.hook_timeout;
        units::duration(timeout)
            .filter(|seconds| *seconds > 0)
            .map(drop)
            .ok_or_else(|| format!("hook_timeout {timeout:?}: say 30s, 10m or 2h"))
    }

    /// What is left out, ready for use.
    ///
    /// # Errors
    /// As [`Sources::wishes`], or a pattern cannot be read.
    pub fn excludes(&self) -> Result<Excludes, String> {
        Excludes::new(&self.wishes()?).map_err(|error| error.to_string())
    }

    /// What is run before and after.
    pub fn hooks(&self) -> Hooks {
        let seconds = units::duration(&self.hook_timeout).and_then(|seconds| seconds.try_into().ok());
        let timeout = seconds.map_or(Hooks::default().timeout, Duration::from_secs);
        Hooks { before: self.before.clone(), after: self.after.clone(), timeout }
    }

    /// What is left out.
    ///
    /// # Errors
    /// In words: a file of patterns cannot be read, or the size is none.
    pub fn wishes(&self) -> Result<Wishes, String> {
        let mut patterns: Vec<(String, Case)> = Vec::new();
        for path in &self.exclude_file {
            let read = read_patterns(path).map_err(|error| format!("{}: {error}", path.display()))?;
            patterns.extend(read.into_iter().map(|text| (text, Case::Sensitive)));
        }
        patterns.extend(self.exclude.iter().map(|text| (text.clone(), Case::Sensitive)));
        patterns.extend(self.iexclude.iter().map(|text| (text.clone(), Case::Insensitive)));
        let size =
            |text: &String| units::size(text).ok_or_else(|| format!("{text:?}: say 500kB, 2MB or 1GiB"));
        Ok(Wishes {
            patterns,
            if_present: self.exclude_if_present.clone(),
            caches: self.exclude_caches,
            larger_than: self.exclude_larger_than.as_ref().map(size).transpose()?,
            nodump: self.exclude_nodump,
            defaults: self.default_excludes,
        })
    }
}
