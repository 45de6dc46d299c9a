//! A restore over files that have changed, by the real client, which is killed or has a call that fails: each file is as it was or as it is to be,
//! never something between, and the same restore again makes all of it right.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use backhaul_tests::trees;

use crate::local::Failure;
use crate::real::{Done, NAMES, Real};
use crate::stage::CLIENTS;

/// Files with their contents, by their place.
type Contents = BTreeMap<PathBuf, Vec<u8>>;

fn contents(dir: &Path) -> Contents {
    let regular = |path: &PathBuf| path.is_file() && !path.is_symlink();
    let files = trees::files(dir).into_iter().filter(regular);
    files.map(|path| (path.strip_prefix(dir).unwrap().to_path_buf(), fs::read(&path).unwrap())).collect()
}

/// How a client's command went beside a server, while something happened to one of them.
pub struct Ran {
    /// What it came to.
    pub done: Done,
    /// Somebody was killed, or ended by itself with words.
    pub ended_early: bool,
    /// It may have ended otherwise than well.
    pub excused: bool,
}

/// One case; `run` runs a command, and starts a server for it.
///
/// # Errors
/// The law that is broken.
pub fn point(real: &Real<'_>, run: impl Fn(&[&str]) -> Result<Ran, Failure>) -> Result<(bool, u64), Failure> {
    let running = real.serve(&[])?;
    let (tree, target) = (real.stage.tree(CLIENTS[0], real.backups), real.home("place"));
    let target_word = target.display().to_string();
    let restore = ["restore", "latest", "-t", &target_word, "--delete", "--overwrite", "always"];
    let whole = real.run(&[], NAMES[0], &restore);
    if whole.code != Some(0) {
        return Err(format!("a restore: {:?} {}", whole.code, whole.said));
    }
    let place = target.join(tree.strip_prefix("/").unwrap_or(&tree));
    let after = contents(&place);
    for (number, name) in after.keys().enumerate() {
        let path = place.join(name);
        match number % 3 {
            0 => fs::write(path, format!("changed {number}")),
            1 => fs::remove_file(path),
            _ => Ok(()),
        }
        .map_err(|error| error.to_string())?;
    }
    let before = contents(&place);
    drop(running);
    let Ran { done, ended_early, excused } = run(&restore)?;
    if done.code != Some(0) && !excused {
        return Err(format!("it ended with {:?}: {}", done.code, done.said));
    }
    let names: Vec<&PathBuf> = before.keys().chain(after.keys()).collect();
    let found = contents(&place);
    for name in names {
        let is = found.get(name);
        if is != before.get(name) && is != after.get(name) {
            return Err(format!("{} is neither as it was nor as it is to be", name.display()));
        }
    }
    if let (Some(0), Some(why)) = (done.code, real.stage.difference(&tree, &place)) {
        return Err(format!("it says that it went well, and {why}"));
    }
    let again = {
        let _running = real.serve(&[])?;
        real.run(&[], NAMES[0], &restore)
    };
    if again.code != Some(0) {
        return Err(format!("the restore again: {:?} {}", again.code, again.said));
    }
    match real.stage.difference(&tree, &place) {
        Some(why) => Err(format!("after the restore again: {why}")),
        None => Ok((ended_early, 1)),
    }
}
