//! Exports in the vault's directory: `exports/<number, 10 digits>.export`, the last [`KEPT`] of them, and the newest of each
//! of the last [`DAYS`] days that had any: whoever enrols a hundred machines makes dozens of exports within the hour, and
//! what is wrong with these may be wrong with all of them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use backhaul_object::codec::Reader;
use backhaul_store::atomic::AtomicFile;

use crate::error::ServerError;

/// So many are kept, whenever they were made.
pub const KEPT: usize = 14;
/// Of so many days one is kept.
pub const DAYS: usize = 14;
const DAY: u64 = 86_400;
/// What is read of one to know its day: magic, version, vault, time.
const HEAD: u64 = 4 + 1 + 16 + 10;
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

fn failed(path: &Path, error: &io::Error) -> ServerError {
    ServerError::File { path: path.into(), why: error.to_string() }
}

/// All exports of a vault's directory, newest first.
///
/// # Errors
/// It cannot be listed.
pub fn list(vault: &Path) -> Result<Vec<(u64, PathBuf)>, ServerError> {
    let dir = vault.join("exports");
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
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

/// On which day one was made, in days since 1970; none when it is no export.
fn day(path: &Path) -> io::Result<Option<u64>> {
    let mut head = Vec::new();
    fs::File::open(path)?.take(HEAD).read_to_end(&mut head)?;
    Ok(super::origin(&mut Reader::new(&head)).ok().map(|(_, made_at)| made_at / DAY))
}

/// Those that are kept no longer, of all, newest first. Days count where there is an export, whatever time it is now.
fn spare(newest_first: &[(u64, PathBuf)]) -> Vec<&Path> {
    let mut days = BTreeSet::new();
    let mut spare = Vec::new();
    for (place, (_, path)) in newest_first.iter().enumerate() {
        let is_of_its_day = match day(path) {
            Ok(Some(day)) => days.insert(day) && days.len() <= DAYS,
            Ok(None) => false,
            // What cannot be read now may be as good as any.
            Err(_) => true,
        };
        if place >= KEPT && !is_of_its_day {
            spare.push(path.as_path());
        }
    }
    spare
}

/// Puts one beside the others, durably; only then the oldest go.
///
/// # Errors
/// The disk refused.
pub fn put(vault: &Path, bytes: &[u8]) -> Result<Put, ServerError> {
    let mut all = list(vault)?;
    let number = all.first().map_or(1, |(number, _)| number + 1);
    let path = vault.join("exports").join(format!("{number:010}{ENDING}"));
    AtomicFile::new(&path).and_then(|file| file.commit(bytes)).map_err(|error| failed(&path, &error))?;
    all.insert(0, (number, path.clone()));
    let old = spare(&all);
    for old in &old {
        fs::remove_file(old).map_err(|error| failed(old, &error))?;
    }
    Ok(Put { path, number, count: all.len() - old.len() })
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
    fn export(made_at: u64) -> Vec<u8> {
        let head = (backhaul_object::ids::VaultId([1; 16]), made_at, Vec::new());
        let key = backhaul_object::keys::VaultKey::new([3; 32]);
        super::super::Export::seal(head, &[], &key, [1; 24]).unwrap().encode()
    }

    /// A month with an export every night, and then a day on which a hundred machines join.
    #[test]
    fn many_exports_of_one_day_push_out_none_of_the_days_before() {
        let dir = tempfile::tempdir().unwrap();
        for night in 1..=30 {
            put(dir.path(), &export(night * DAY)).unwrap();
        }
        let numbers =
            || -> Vec<u64> { list(dir.path()).unwrap().iter().map(|(number, _)| *number).collect() };
        assert_eq!(numbers(), (17..=30).rev().collect::<Vec<_>>());
        for minute in 0..100 {
            put(dir.path(), &export(30 * DAY + 3_600 + 60 * minute)).unwrap();
        }
        // The newest fourteen, all of the thirtieth day, and the nights of the 13 days before that.
        assert_eq!(numbers(), (117..=130).rev().chain((17..=29).rev()).collect::<Vec<_>>());
        // A clock that was set back by years makes days, too, and no more of them.
        for night in 1..=40 {
            assert!(put(dir.path(), &export(night)).unwrap().count <= KEPT + DAYS);
        }
    }
}
