//! The brake: what a run changed, held against what the client's runs usually change.
//!
//! Ransomware, or somebody with the client's key, rewrites, renames or deletes most of the files, and waits for the good
//! snapshots to be dropped. A run that changes far more than this client's runs do trips its brake: nothing of it is
//! forgotten or reclaimed until an operator has looked.
//!
//! What counts most is counted by the server itself: files and bytes in the snapshot, and the contents that the run
//! added. Only renames are seen by the client's own count, which a hostile client can leave out: what it renames is
//! still there.

use std::fmt;

/// Runs that are looked back at.
pub const HISTORY: usize = 30;
/// Below this share of all nothing is unusual.
const SHARE: f64 = 0.3;
/// So many times what this client's runs change is unusual.
const FACTOR: f64 = 1.5;
/// Fewer files than this are not judged.
const FILES_MIN: u64 = 50;
/// Fewer new bytes than this are not judged.
const BYTES_MIN: u64 = 1 << 20;
/// Contents that compress to this share or more of themselves are encrypted, or compressed already.
const DENSE: f64 = 0.95;
/// Contents that usually compress to less than this are neither.
const USUALLY: f64 = 0.85;

/// What one run changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Profile {
    /// The snapshot's number among the client's.
    pub sequence: u64,
    /// Files in the snapshot.
    pub files: u64,
    /// Files that were not known from the run before, as the client counts.
    pub files_new: u64,
    /// Files with other contents than in the run before, as the client counts.
    pub files_changed: u64,
    /// Bytes of the files in the snapshot.
    pub bytes: u64,
    /// Contents that the vault did not have.
    pub added: Added,
}

/// Contents that the vault did not have: of a run, of all its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Added {
    /// Their bytes.
    pub bytes: u64,
    /// What is left of these when they are compressed.
    pub packed: u64,
}

impl std::ops::Add for Added {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(more.bytes), packed: self.packed.saturating_add(more.packed) }
    }
}

/// What is unusual about a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jump {
    /// Files are gone.
    Deleted {
        /// So many.
        files: u64,
        /// Of so many.
        of: u64,
    },
    /// Contents are others.
    Rewritten {
        /// So many bytes.
        bytes: u64,
        /// Of so many.
        of: u64,
    },
    /// Files have other names.
    Renamed {
        /// So many.
        files: u64,
        /// Of so many.
        of: u64,
    },
    /// Much was added that does not compress, where that is not usual.
    Incompressible {
        /// So many bytes.
        bytes: u64,
        /// Beside so many.
        of: u64,
    },
}

impl fmt::Display for Jump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |part: u64, of: u64| (share(part, of) * 100.0).round();
        match *self {
            Self::Deleted { files, of } => {
                write!(f, "{files} of {of} files are gone ({} %)", percent(files, of))
            }
            Self::Rewritten { bytes, of } => {
                let (bytes_mib, of_mib) = (bytes >> 20, of >> 20);
                write!(f, "{bytes_mib} of {of_mib} MiB have other contents ({} %)", percent(bytes, of))
            }
            Self::Renamed { files, of } => {
                write!(f, "{files} of {of} files have other names ({} %)", percent(files, of))
            }
            Self::Incompressible { bytes, of } => {
                let (bytes_mib, of_mib) = (bytes >> 20, of >> 20);
                write!(f, "{bytes_mib} MiB that do not compress were added to {of_mib} MiB")
            }
        }
    }
}

/// What a run did to what was there before.
#[derive(Debug, Clone, Copy, Default)]
struct Shares {
    deleted: f64,
    rewritten: f64,
    renamed: f64,
    added: f64,
}

impl Shares {
    fn of(before: &Profile, run: &Profile) -> Self {
        Self {
            deleted: share(before.files.saturating_sub(run.files), before.files),
            rewritten: share(rewritten(before, run), before.bytes),
            renamed: share(renamed(before, run), before.files),
            added: share(run.added.bytes, before.bytes),
        }
    }

    /// What has happened twice is usual; once, it was the jump.
    fn second_largest(all: &[Self]) -> Self {
        let second = |of: fn(&Self) -> f64| {
            let mut shares: Vec<f64> = all.iter().map(of).collect();
            shares.sort_by(f64::total_cmp);
            shares.iter().rev().nth(1).copied().unwrap_or(0.0)
        };
        Self {
            deleted: second(|s| s.deleted),
            rewritten: second(|s| s.rewritten),
            renamed: second(|s| s.renamed),
            added: second(|s| s.added),
        }
    }
}

/// Judges a run by the client's runs before it, oldest first; the first run of all is never unusual.
pub fn judge(history: &[Profile], run: &Profile) -> Option<Jump> {
    let history = &history[history.len().saturating_sub(HISTORY)..];
    let before = history.last()?;
    let shares: Vec<Shares> = history.windows(2).map(|pair| Shares::of(&pair[0], &pair[1])).collect();
    let usual = Shares::second_largest(&shares);
    let now = Shares::of(before, run);
    let jumps = |now: f64, usual: f64| now > SHARE && now > FACTOR * usual;
    let many = before.files >= FILES_MIN;
    let heavy = run.added.bytes >= BYTES_MIN;
    if heavy && jumps(now.rewritten, usual.rewritten) {
        return Some(Jump::Rewritten { bytes: rewritten(before, run), of: before.bytes });
    }
    if many && jumps(now.deleted, usual.deleted) {
        return Some(Jump::Deleted { files: before.files - run.files, of: before.files });
    }
    if many && jumps(now.renamed, usual.renamed) {
        return Some(Jump::Renamed { files: renamed(before, run), of: before.files });
    }
    let dense = share(run.added.packed, run.added.bytes) >= DENSE;
    if heavy && dense && jumps(now.added, usual.added) && usually_compresses(history) {
        return Some(Jump::Incompressible { bytes: run.added.bytes, of: before.bytes });
    }
    None
}

/// New contents that do not make the whole larger have taken the place of others.
fn rewritten(before: &Profile, run: &Profile) -> u64 {
    run.added.bytes.saturating_sub(run.bytes.saturating_sub(before.bytes)).min(before.bytes)
}

/// New files that do not make the whole more have taken the place of others. A client that knows nothing of the run before
/// calls none new.
fn renamed(before: &Profile, run: &Profile) -> u64 {
    run.files_new.saturating_sub(run.files.saturating_sub(before.files)).min(before.files)
}

fn usually_compresses(history: &[Profile]) -> bool {
    let sum = |of: fn(&Profile) -> u64| history.iter().map(of).fold(0, u64::saturating_add);
    let (new, packed) = (sum(|p| p.added.bytes), sum(|p| p.added.packed));
    new > 0 && share(packed, new) < USUALLY
}

fn share(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn added(bytes: u64, packed: u64) -> Added {
        Added { bytes, packed }
    }

    /// A client with 1,000 files and 1,000 MiB that changes one file in a hundred.
    fn calm(sequence: u64) -> Profile {
        Profile {
            sequence,
            files: 1_000,
            files_new: 1,
            files_changed: 10,
            bytes: 1_000 * MIB,
            added: added(10 * MIB, 5 * MIB),
        }
    }

    fn history() -> Vec<Profile> {
        let first = Profile { files_new: 1_000, added: added(1_000 * MIB, 500 * MIB), ..calm(1) };
        std::iter::once(first).chain((2..10).map(calm)).collect()
    }

    #[test]
    fn a_day_like_others_is_nothing() {
        assert_eq!(judge(&[], &calm(1)), None);
        assert_eq!(judge(&history(), &calm(10)), None);
        let busy = Profile { files_changed: 200, added: added(250 * MIB, 240 * MIB), ..calm(10) };
        assert_eq!(judge(&history(), &busy), None);
        let grown = Profile {
            files: 3_000,
            files_new: 2_000,
            bytes: 3_000 * MIB,
            added: added(2_000 * MIB, 900 * MIB),
            ..calm(10)
        };
        assert_eq!(judge(&history(), &grown), None, "much that is new takes nothing away");
    }

    #[test]
    fn rewriting_deleting_renaming_and_dense_growth_trip() {
        let encrypted = Profile { files_changed: 900, added: added(900 * MIB, 900 * MIB), ..calm(10) };
        assert_eq!(
            judge(&history(), &encrypted),
            Some(Jump::Rewritten { bytes: 900 * MIB, of: 1_000 * MIB })
        );
        let silent = Profile { files_new: 0, files_changed: 0, ..encrypted };
        assert!(judge(&history(), &silent).is_some(), "what a client says about itself does not hide it");
        let emptied = Profile { files: 500, bytes: 400 * MIB, ..calm(10) };
        assert_eq!(judge(&history(), &emptied), Some(Jump::Deleted { files: 500, of: 1_000 }));
        let renamed = Profile { files_new: 800, files_changed: 0, added: added(0, 0), ..calm(10) };
        assert_eq!(judge(&history(), &renamed), Some(Jump::Renamed { files: 800, of: 1_000 }));
        // `mv Documents X`, where there is nothing else.
        let all = Profile { files_new: 1_000, ..renamed };
        assert_eq!(judge(&history(), &all), Some(Jump::Renamed { files: 1_000, of: 1_000 }));
        let copies = Profile {
            files: 1_900,
            files_new: 900,
            bytes: 1_900 * MIB,
            added: added(900 * MIB, 900 * MIB),
            ..calm(10)
        };
        assert_eq!(
            judge(&history(), &copies),
            Some(Jump::Incompressible { bytes: 900 * MIB, of: 1_000 * MIB })
        );
    }

    #[test]
    fn what_is_usual_for_this_client_is_no_jump() {
        let churn =
            |sequence| Profile { files_changed: 700, added: added(700 * MIB, 5 * MIB), ..calm(sequence) };
        let history: Vec<Profile> = (1..10).map(churn).collect();
        assert_eq!(judge(&history, &churn(10)), None);
        let forgetful = Profile { files_new: 0, files_changed: 0, added: added(0, 5 * MIB), ..calm(10) };
        assert_eq!(judge(&history, &forgetful), None, "a client that lost its state has renamed nothing");
        let small = Profile { files: 40, bytes: 4_000, ..Profile::default() };
        assert_eq!(judge(&[small], &Profile::default()), None, "a handful of files is not judged");
    }
}
