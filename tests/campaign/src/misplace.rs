//! Files that are whole and in the wrong place: exchanged, duplicated, of another vault, of an earlier time, or added.
//!
//! Each is noticed or of no consequence; what is lost by it is named, and nothing else is lost.

use std::fs;
use std::path::{Path, PathBuf};

use crate::flips::{Hope, judge};
use crate::golden::{self, Files, Golden};

/// What happens to a file of a golden vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    /// It changes places with another one.
    Swap(usize),
    /// Another one is in its place, too.
    Duplicate(usize),
    /// It is there a second time, under a name beside it.
    Twin,
    /// It is of another time.
    Older,
    /// It is of another vault.
    Foreign,
}

/// What came of all cases.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Files misplaced.
    pub cases: u64,
    /// Of these it was noticed.
    pub noticed: u64,
    /// Laws broken, with what leads there again.
    pub broken: Vec<String>,
}

/// All cases, or every `step`th, below a directory.
pub fn explore(dir: &Path, step: usize) -> Outcome {
    let [first, .., last] = golden::make(dir);
    let (others, mut outcome) = (golden::others(dir), Outcome::default());
    let mut all = |golden: &Golden, names: &[PathBuf], count| {
        let of_file = |at: usize| {
            let pairs = (0..names.len()).filter(move |other| *other != at);
            let two = pairs.flat_map(|other| [Harm::Swap(other), Harm::Duplicate(other)]);
            two.chain([Harm::Twin, Harm::Older, Harm::Foreign]).map(move |harm| (at, harm))
        };
        for (at, harm) in (0..count).flat_map(of_file).step_by(step.max(1)) {
            one(golden, names, (at, harm), &others, &dir.join("work"), &mut outcome);
        }
    };
    all(&first, &first.names, first.names.len());
    // What only the last has changes places with everything there.
    let names: Vec<PathBuf> = last.names.iter().cloned().chain(last.rest()).collect();
    all(&last, &names, last.names.len());
    outcome
}

fn one(
    golden: &Golden,
    names: &[PathBuf],
    (at, harm): (usize, Harm),
    others: &[Files; 2],
    work: &Path,
    outcome: &mut Outcome,
) {
    let Some(hope) = hope(names, at, harm, others) else { return };
    outcome.cases += 1;
    match judge(golden, &|root| strike(root, names, at, harm, others), hope, work) {
        Ok(noticed) => outcome.noticed += u64::from(noticed),
        Err(why) => outcome.broken.push(format!("{harm:?} of {}: {why}", names[at].display())),
    }
}

/// Packs have no second copy: what is in the wrong place is then lost, and named. None where there is no such case.
fn hope(names: &[PathBuf], at: usize, harm: Harm, others: &[Files; 2]) -> Option<Hope> {
    let has = |files: &Files| files.iter().any(|(name, _)| *name == names[at]);
    let touched: Vec<&PathBuf> = match harm {
        Harm::Swap(other) if other < at => return None,
        Harm::Swap(other) => vec![&names[at], &names[other]],
        Harm::Older if !has(&others[0]) => return None,
        Harm::Foreign if !has(&others[1]) => return None,
        _ => vec![&names[at]],
    };
    let is = |folder: &str| touched.iter().any(|name| name.starts_with(folder));
    // A manifest or the descriptor may be touched together with its copy.
    let both = touched.len() == 2 && is("copies");
    // What has come back and is not committed yet is in an open pack, which only SQLite's log knows.
    let uncommitted = is("open") || touched.iter().any(|name| name.ends_with("catalog.sqlite-wal"));
    Some(if is("packs") || both || uncommitted { Hope::Named } else { Hope::Whole })
}

fn strike(root: &Path, names: &[PathBuf], at: usize, harm: Harm, others: &[Files; 2]) {
    let path = root.join(&names[at]);
    let of = |files: &Files| files.iter().find(|(name, _)| *name == names[at]).unwrap().1.clone();
    let mine = fs::read(&path).unwrap();
    match harm {
        Harm::Swap(other) => {
            let other = root.join(&names[other]);
            fs::write(&path, fs::read(&other).unwrap()).unwrap();
            fs::write(other, mine).unwrap();
        }
        Harm::Duplicate(other) => drop(fs::copy(root.join(&names[other]), &path).unwrap()),
        Harm::Twin => fs::write(path.with_file_name("twin"), mine).unwrap(),
        Harm::Older => fs::write(path, of(&others[0])).unwrap(),
        Harm::Foreign => fs::write(path, of(&others[1])).unwrap(),
    }
}
