//! Exports in the vault's directory: `exports/<number, 10 digits>.export`, the last [`KEPT`] of them.

use std::fs;
use std::path::{Path, PathBuf};

use backhaul_store::atomic::AtomicFile;

use crate::error::ServerError;

/// So many are kept.
pub const KEPT: usize = 14;
const ENDING: &str = ".export";

/// One that was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// Where.
    pub path: PathBuf,
    /// Its number: the newest has the highest.
    pub number: u64,
    /// How many there are now.
    pub count: usize,
}

fn failed(path: &Path, error: &std::io::Error) -> ServerError {
    ServerError::File { path: path.into(), why: error.to_string() }
}

/// All exports of a vault's directory, newest first.
///
/// # Errors
/// It cannot be listed.
pub fn list(vault: &Path) -> Result<Vec<(u64, PathBuf)>, ServerError> {
    let dir = vault.join("exports");
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| failed(&dir, &error))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed(&dir, &error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(number) = name.strip_suffix(ENDING).and_then(|number| number.parse().ok()) {
            found.push((number, path));
        }
    }
    found.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    Ok(found)
}

/// Puts one beside the others, durably; only then the oldest go.
///
/// # Errors
/// The disk refused.
pub fn put(vault: &Path, bytes: &[u8]) -> Result<Put, ServerError> {
    let before = list(vault)?;
    let number = before.first().map_or(1, |(number, _)| number + 1);
    let path = vault.join("exports").join(format!("{number:010}{ENDING}"));
    AtomicFile::new(&path).and_then(|file| file.commit(bytes)).map_err(|error| failed(&path, &error))?;
    for (_, old) in before.iter().skip(KEPT - 1) {
        fs::remove_file(old).map_err(|error| failed(old, &error))?;
    }
    Ok(Put { path, number, count: (before.len() + 1).min(KEPT) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_last_few_are_kept_and_numbers_go_on() {
        let dir = tempfile::tempdir().unwrap();
        assert!(list(dir.path()).unwrap().is_empty());
        for number in 1..=KEPT as u64 + 3 {
            assert_eq!(put(dir.path(), &number.to_le_bytes()).unwrap().number, number);
        }
        fs::write(dir.path().join("exports/notes.txt"), b"of somebody").unwrap();
        let numbers: Vec<u64> = list(dir.path()).unwrap().iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (4..=KEPT as u64 + 3).rev().collect::<Vec<_>>());
    }
}
