//! Patterns with the rules of gitignore(5), held against paths from the root of the file system or snapshot.
//!
//! A pattern without `/` (or with one only at its end) fits a name anywhere; with one it begins at the root. `*`, `?` and
//! `[a-z]` do not match `/`, `**` does. With `/` at its end it fits directories only. What fits a directory is true of all
//! that is in it. `!` before a pattern takes back what an earlier one said; the last that fits decides.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use thiserror::Error;

/// Whether `A` fits `a`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Case {
    /// It does not.
    #[default]
    Sensitive,
    /// It does.
    Insensitive,
}

/// A pattern that cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("pattern {text:?}: {why}")]
pub struct PatternError {
    /// Which.
    pub text: String,
    /// Why.
    pub why: String,
}

/// A list of patterns, of which the last that fits decides.
#[derive(Debug, Clone)]
pub struct Patterns(Gitignore);

impl Default for Patterns {
    fn default() -> Self {
        Self(Gitignore::empty())
    }
}

impl Patterns {
    /// From their texts; empty ones and comments (`#`) are none.
    ///
    /// # Errors
    /// The first that cannot be read.
    pub fn new<'t>(texts: impl IntoIterator<Item = (&'t str, Case)>) -> Result<Self, PatternError> {
        let mut builder = GitignoreBuilder::new("/");
        for (text, case) in texts {
            let wrong = |why: ignore::Error| PatternError { text: text.to_owned(), why: why.to_string() };
            builder.case_insensitive(case == Case::Insensitive).map_err(wrong)?;
            builder.add_line(None, text).map_err(wrong)?;
        }
        let wrong = |why: ignore::Error| PatternError { text: String::new(), why: why.to_string() };
        builder.build().map(Self).map_err(wrong)
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the last pattern that fits a path says of it: true when it is meant. `None` when none fits.
    pub fn verdict(&self, path: &[u8], kind: Kind) -> Option<bool> {
        match self.0.matched(Path::new(OsStr::from_bytes(path)), kind == Kind::Directory) {
            Match::None => None,
            Match::Ignore(_) => Some(true),
            Match::Whitelist(_) => Some(false),
        }
    }
}

/// Whether a path is a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is.
    Directory,
    /// It is anything else.
    Other,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// Patterns, a path, what it is, and what is said of it.
    type Example<'c> = (&'c [&'c str], &'c [u8], Kind, Option<bool>);

    /// Cases from gitignore(5).
    #[test]
    fn the_rules_of_gitignore() {
        use Kind::{Directory, Other};
        let cases: &[Example<'_>] = &[
            (&["*.o"], b"/home/ana/a.o", Other, Some(true)),
            (&["*.o"], b"/home/ana/a.out", Other, None),
            (&["build/"], b"/home/ana/build", Directory, Some(true)),
            (&["build/"], b"/home/ana/build", Other, None),
            (&["/home/*/x"], b"/home/ana/x", Other, Some(true)),
            (&["/home/*/x"], b"/home/ana/b/x", Other, None),
            (&["ana/x"], b"/home/ana/x", Other, None),
            (&["home/ana/x"], b"/home/ana/x", Other, Some(true)),
            (&["**/ana/x"], b"/home/ana/x", Other, Some(true)),
            (&["/home/**/x"], b"/home/x", Other, Some(true)),
            (&["/home/**/x"], b"/home/a/b/x", Other, Some(true)),
            (&["*.o", "!keep.o"], b"/keep.o", Other, Some(false)),
            (&["!keep.o", "*.o"], b"/keep.o", Other, Some(true)),
            (&["# a comment", ""], b"/# a comment", Other, None),
            (&["\\#1"], b"/#1", Other, Some(true)),
            (&["[ab]?"], b"/bx", Other, Some(true)),
            (&["[!ab]?"], b"/bx", Other, None),
            (&["é*"], "/été".as_bytes(), Other, Some(true)),
            (&["*.txt"], b"/\xff\xfe.txt", Other, Some(true)),
            (&["with space "], b"/with space", Other, Some(true)),
        ];
        for (texts, path, kind, expected) in cases {
            let patterns = Patterns::new(texts.iter().map(|text| (*text, Case::Sensitive))).unwrap();
            assert_eq!(
                patterns.verdict(path, *kind),
                *expected,
                "{texts:?} {:?}",
                String::from_utf8_lossy(path)
            );
        }
    }

    #[test]
    fn case_is_of_each_pattern() {
        let patterns = Patterns::new([("*.JPG", Case::Insensitive), ("*.png", Case::Sensitive)]).unwrap();
        assert_eq!(patterns.verdict(b"/a.jpg", Kind::Other), Some(true));
        assert_eq!(patterns.verdict(b"/a.PNG", Kind::Other), None);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error = Patterns::new([("fine", Case::Sensitive), ("[z-a]", Case::Sensitive)]).unwrap_err();
        assert_eq!(error.text, "[z-a]");
    }
}
