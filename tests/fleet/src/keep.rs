//! What runs came to, in a file: one line of JSON for each, after one that says of which case. A run that was cut off goes on
//! from there.

use std::fs::{File, OpenOptions};
use std::io::{Error, Read, Result, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::arm::Arm;
use crate::case::Case;
use crate::matrix::{self, Runs};

/// Of the file's lines.
const VERSION: u32 = 1;

/// The first line.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Head {
    version: u32,
    case: String,
}

/// Each of the others.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    arm: Arm,
    seed: u64,
    result: matrix::Result,
}

/// The file, open at its end.
#[derive(Debug)]
pub struct Keep(Mutex<File>);

impl Keep {
    /// Opens or begins a file; returns it and what is in it. A line that was cut is as if it were not there.
    pub fn open(path: &Path, case: &Case) -> Result<(Self, Runs)> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let head = Head { version: VERSION, case: format!("{case:?}") };
        match text.lines().next().map(serde_json::from_str::<Head>) {
            None => write(&mut file, &head)?,
            Some(Ok(found)) if found == head => {}
            Some(_) => {
                let why =
                    format!("{} is of another case, or of another version of this program", path.display());
                return Err(Error::other(format!("{why}: name another file, or remove it")));
            }
        }
        if !text.is_empty() && !text.ends_with('\n') {
            file.seek(SeekFrom::End(0))?;
            file.write_all(b"\n")?;
        }
        let lines = text.lines().skip(1).filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let runs = lines.map(|line| ((line.arm, line.seed), line.result)).collect();
        Ok((Self(Mutex::new(file)), runs))
    }

    /// Writes a result down.
    pub fn put(&self, arm: Arm, seed: u64, result: &matrix::Result) -> Result<()> {
        let line = Line { arm, seed, result: result.clone() };
        let mut file = self.0.lock().map_err(|_| Error::other("another thread has failed"))?;
        write(&mut file, &line)
    }
}

fn write(file: &mut File, line: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string(line).map_err(Error::other)?;
    text.push('\n');
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::case::Faults;
    use crate::table::{Style, tables};

    #[test]
    fn what_was_kept_is_not_run_again_and_gives_the_same_table() {
        let case = Case { desktops: 4, laptops: 4, days: 3, warm_up: 1, faults: Faults::Off, ..Case::seed() };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kept.jsonl");
        let arms = [Arm::Hybrid, Arm::Poll60];
        let (keep, before) = Keep::open(&path, &case).unwrap();
        assert!(before.is_empty());
        let told = |arm: Arm, seed: u64, result: &matrix::Result| keep.put(arm, seed, result).unwrap();
        let runs = matrix::run(&case, &arms, 2, 1, before, &told);
        // The last line is cut in the middle of a word.
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 20]).unwrap();
        let (keep, before) = Keep::open(&path, &case).unwrap();
        assert_eq!(before.len(), 3);
        let again = Mutex::new(Vec::new());
        let told = |arm: Arm, seed: u64, result: &matrix::Result| {
            again.lock().unwrap().push((arm, seed));
            keep.put(arm, seed, result).unwrap();
        };
        matrix::run(&case, &arms, 2, 1, before, &told);
        assert_eq!(again.into_inner().unwrap(), [(Arm::Poll60, 2)]);
        let (_, kept) = Keep::open(&path, &case).unwrap();
        let table = |runs: Runs| tables(&case, &matrix::results(runs), Style::Text);
        assert_eq!(table(kept), table(runs));
        let other = Case { slots: 1, ..case.clone() };
        assert!(Keep::open(&path, &other).unwrap_err().to_string().contains("another case"));
    }
}
