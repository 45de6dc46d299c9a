//! The data sets: a source tree (S1), an office's mix (S2), a disk image with a database (S3), ten daily versions (S4),
//! and 200,000 tiny files (S5).

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

/// Daily versions in S4.
const VERSIONS: usize = 10;

/// A data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Set {
    /// A source tree.
    S1,
    /// An office's mix, mostly incompressible.
    S2,
    /// A disk image with a database in it.
    S3,
    /// Ten daily versions.
    S4,
    /// Many tiny files.
    S5,
}

impl Set {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::S1, Self::S2, Self::S3, Self::S4, Self::S5];

    /// As the script calls it.
    pub fn name(self) -> String {
        format!("{self:?}")
    }
}

/// Makes the sets, and turns them into their second day and back.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/datasets/datasets.sh");

/// Where the sets are.
pub struct Datasets {
    data: PathBuf,
}

impl Datasets {
    /// The sets in a folder.
    pub fn new(data: &Path) -> Self {
        std::fs::create_dir_all(data).unwrap();
        Self { data: data.canonicalize().unwrap() }
    }

    /// What is saved.
    pub fn live(&self, set: Set) -> PathBuf {
        self.data.join(set.name()).join("live")
    }

    /// Makes a set unless it is there, on its first day.
    pub fn first_day(&self, set: Set) {
        // These are made of the source tree.
        if matches!(set, Set::S2 | Set::S3 | Set::S5) {
            self.make(Set::S1);
        }
        self.make(set);
        match set {
            Set::S4 => self.call(&["day", "S4", "1"]),
            _ => self.call(&["revert", &set.name()]),
        }
    }

    fn make(&self, set: Set) {
        if !self.data.join(set.name()).exists() {
            self.call(&["make", &set.name()]);
        }
    }

    /// Days after the first.
    pub fn further_days(&self, set: Set) -> usize {
        if set == Set::S4 { VERSIONS - 1 } else { 1 }
    }

    /// Turns to the next day, after so many of the further ones.
    pub fn next_day(&self, set: Set, after: usize) {
        match set {
            Set::S4 => self.call(&["day", "S4", &(after + 2).to_string()]),
            _ => self.call(&["churn", &set.name()]),
        }
    }

    /// Leaves a set as it was found.
    pub fn revert(&self, set: Set) {
        if set != Set::S4 {
            self.call(&["revert", &set.name()]);
        }
    }

    fn call(&self, args: &[&str]) {
        let status = Command::new(SCRIPT).args(args).env("DATA", &self.data).status().unwrap();
        assert!(status.success(), "{SCRIPT} {args:?}");
    }
}
