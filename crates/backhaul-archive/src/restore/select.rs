//! Which part of a snapshot is wanted back.

use crate::patterns::{Kind, Patterns};

/// Patterns against paths in the snapshot.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only what fits, with all that is in it; everything when there is no pattern.
    pub include: Patterns,
    /// And of that not what fits here.
    pub exclude: Patterns,
}

/// What a selection says of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// It is wanted, and what is in it unless that is excluded.
    Wanted,
    /// A folder that is not, but something in it may be.
    Perhaps,
    /// Neither it nor what is in it.
    Unwanted,
}

impl Selection {
    /// True if nothing is asked for in particular, and nothing left out.
    pub(super) fn is_everything(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// `above` is what was said of the folder that it is in.
    pub(super) fn choose(&self, path: &[u8], kind: Kind, above: Choice) -> Choice {
        if self.exclude.verdict(path, kind) == Some(true) || above == Choice::Unwanted {
            Choice::Unwanted
        } else if above == Choice::Wanted || self.include.verdict(path, kind) == Some(true) {
            Choice::Wanted
        } else if kind == Kind::Directory {
            Choice::Perhaps
        } else {
            Choice::Unwanted
        }
    }

    /// What is said of the folder where a restore begins.
    pub(super) fn at_start(&self) -> Choice {
        if self.include.is_empty() { Choice::Wanted } else { Choice::Perhaps }
    }

    /// True for something that a restore does not touch though it is not in the snapshot.
    pub(super) fn protects(&self, path: &[u8], kind: Kind) -> bool {
        self.exclude.verdict(path, kind) == Some(true)
    }
}
