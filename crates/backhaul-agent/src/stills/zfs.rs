//! Stills of ZFS: snapshots of datasets, read by way of the folder `.zfs` that every mounted dataset has.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};

use super::tool::{Refusal, Tools};

/// A snapshot's full name.
pub(super) fn full_name(dataset: &str, name: &str) -> String {
    format!("{dataset}@{name}")
}

/// The pool that a dataset is in.
pub(super) fn pool(dataset: &str) -> &str {
    dataset.split('/').next().unwrap_or(dataset)
}

/// Makes all of one pool in one step: they are of the same moment.
pub(super) async fn make<T: Tools>(tools: &T, full_names: &[String]) -> Result<(), Refusal> {
    let names = full_names.iter().map(String::as_str);
    tools.ask("zfs", &["snapshot"].into_iter().chain(names).collect::<Vec<_>>()).await.map(drop)
}

/// Opens one; the kernel mounts it at the first touch.
pub(super) fn opened(at: &Path, name: &str) -> io::Result<OwnedFd> {
    let path = at.join(".zfs/snapshot").join(name).join(".");
    Ok(open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Removes one, if it is there.
pub(super) async fn remove<T: Tools>(tools: &T, full: &str) -> Result<(), Refusal> {
    match tools.ask("zfs", &["destroy", full]).await {
        Err(Refusal::Said(why)) if why.contains("could not find") || why.contains("does not exist") => Ok(()),
        other => other.map(drop),
    }
}
