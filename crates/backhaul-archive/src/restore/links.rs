//! Where the first file of each link group is, for those that come after it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::roomy::{Numbers, Texts};

/// The folder and the name of something.
pub(super) type At = (Arc<[u8]>, Vec<u8>);

#[derive(Default)]
pub(super) struct Links(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// By group: the length of the folder's path in 4 bytes, it, and the name.
    firsts: Texts,
    /// Groups of which a dry run has seen that the first would be written anew.
    rewritten: Numbers,
}

impl Known {
    fn first(&self, group: u64) -> io::Result<Option<At>> {
        let Some(text) = self.firsts.get(group)? else { return Ok(None) };
        let parts = text.split_first_chunk().and_then(|(len, path)| {
            let (dir, name) = path.split_at_checked(u32::from_le_bytes(*len) as usize)?;
            Some((dir.into(), name.to_vec()))
        });
        parts.map(Some).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn set(&mut self, group: u64, dir: &[u8], name: &[u8]) -> io::Result<()> {
        self.firsts.set(group, &[&(dir.len() as u32).to_le_bytes(), dir, name].concat())
    }
}

/// What is said when the file in which they are kept fails.
fn forgotten(error: io::Error) -> String {
    format!("where files are that have further names cannot be kept: {error}")
}

impl Links {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn first(&self, group: Option<u64>) -> Result<Option<At>, String> {
        group.map_or(Ok(None), |group| self.known().first(group)).map_err(forgotten)
    }

    /// The first that is there, whatever was before.
    pub(super) fn set(&self, group: u64, dir: &[u8], name: &[u8]) -> Result<(), String> {
        self.known().set(group, dir, name).map_err(forgotten)
    }

    /// The first, if there is none.
    pub(super) fn note(&self, group: u64, dir: &[u8], name: &[u8]) -> Result<(), String> {
        let mut known = self.known();
        match known.first(group).map_err(forgotten)? {
            Some(_) => Ok(()),
            None => known.set(group, dir, name).map_err(forgotten),
        }
    }

    /// In a dry run: the first would be another file than the one that is there.
    pub(super) fn rehearse(&self, group: Option<u64>) -> Result<(), String> {
        group.map_or(Ok(()), |group| self.known().rewritten.set((group, 0), 0)).map_err(forgotten)
    }

    /// True if [`rehearse`](Self::rehearse) was told so.
    pub(super) fn would_be_rewritten(&self, group: u64) -> Result<bool, String> {
        Ok(self.known().rewritten.get((group, 0)).map_err(forgotten)?.is_some())
    }

    /// It could not be made.
    pub(super) fn forget(&self, group: u64, dir: &[u8], name: &[u8]) -> Result<(), String> {
        let mut known = self.known();
        match known.first(group).map_err(forgotten)? {
            Some((d, n)) if *d == *dir && n == name => known.firsts.remove(group).map_err(forgotten),
            _ => Ok(()),
        }
    }
}
