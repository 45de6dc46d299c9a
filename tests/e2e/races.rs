//! Restores while somebody else swaps folders and files of the target for links that lead out of it, each in one step, so that
//! there is no moment in which a name is gone: nothing outside is touched.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use backhaul_tests::{Home, trees};
use rustix::fs::{CWD, FileType, RenameFlags, renameat_with};

/// Folders in each other, and files in them that are replaced by links, too.
const FOLDERS: [&str; 3] = ["top", "top/mid", "top/mid/low"];
const FILES: [&str; 4] = ["top/00.txt", "top/mid/large", "top/mid/low/00.txt", "top/mid/pipe"];

/// What is saved; and, with other contents, what lies outside under the same names.
fn make(root: &Path, seed: u64) {
    for (i, folder) in FOLDERS.iter().enumerate() {
        fs::create_dir_all(root.join(folder)).unwrap();
        for n in 0..60 {
            let content = trees::noise(2_000 + n as usize, seed + n + 100 * i as u64);
            fs::write(root.join(folder).join(format!("{n:02}.txt")), content).unwrap();
        }
        symlink(format!("seed {seed}"), root.join(folder).join("link")).unwrap();
        trees::special(&root.join(folder), "pipe", FileType::Fifo, 0).unwrap();
        trees::attribute(&root.join(folder), "user.seed", seed.to_string().as_bytes());
        trees::attribute(&root.join(folder).join("00.txt"), "user.seed", seed.to_string().as_bytes());
    }
    fs::write(root.join("top/mid/large"), trees::noise(6_000_000, seed)).unwrap();
}

/// A link that leads outside to where a name of the target is, and where it lies while it is not in that name's place.
struct Decoy {
    at: PathBuf,
    place: PathBuf,
    leads_to: PathBuf,
}

impl Decoy {
    /// Of all names.
    fn all(dir: &Path, target: &Path, outside: &Path) -> Vec<Self> {
        fs::create_dir(dir).unwrap();
        let of = |name: &&str| Self {
            at: dir.join(name.replace('/', " ")),
            place: target.join(name),
            leads_to: outside.join(name),
        };
        FOLDERS.iter().chain(&FILES).map(of).collect()
    }

    /// Whatever a restore has made of it: it is a link again.
    fn renew(&self) {
        if !self.at.is_symlink() {
            let _ = fs::remove_dir_all(&self.at);
            let _ = fs::remove_file(&self.at);
            let _ = symlink(&self.leads_to, &self.at);
        }
    }

    fn swap(&self) -> bool {
        renameat_with(CWD, &self.at, CWD, &self.place, RenameFlags::EXCHANGE).is_ok()
    }
}

/// Swaps them and back until it is over; how often that was done.
fn meddle(decoys: &[Decoy], over: &AtomicBool) -> u64 {
    let mut swaps = 0;
    while !over.load(Ordering::Relaxed) {
        for decoy in decoys {
            decoy.renew();
            if decoy.swap() {
                swaps += 1;
                std::thread::yield_now();
                decoy.swap();
            }
        }
    }
    swaps
}

#[test]
fn whoever_swaps_folders_for_links_meanwhile_leads_a_restore_nowhere() {
    let (dir, home) = (tempfile::tempdir().unwrap(), Home::new());
    let at = |name: &str| dir.path().join(name);
    let (tree, outside, target) = (at("tree"), at("outside"), at("target"));
    make(&tree, 1);
    make(&outside, 1_000);
    home.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
    let before = trees::describe(&outside, trees::Regard::All);
    fs::create_dir(&target).unwrap();
    let (decoys, over) = (Decoy::all(&at("decoys"), &target, &outside), AtomicBool::new(false));
    let (from, to) = (format!("latest:{}", tree.display()), target.to_str().unwrap());
    let swaps = std::thread::scope(|scope| {
        let meddler = scope.spawn(|| meddle(&decoys, &over));
        for more in [
            &[][..],
            &["--overwrite", "always"],
            &["--overwrite", "always", "--delete"],
            &["--delete"],
            &["--overwrite", "if-newer", "--verify"],
            &["--overwrite", "always", "--in-place"],
            &["--overwrite", "always", "--delete", "--verify"],
        ] {
            let done = home.run(&[&["-q", "restore", &from, "-t", to][..], more].concat());
            // It may well fail, and then says at what.
            assert!(matches!(done.code, 0 | 3), "{more:?}: {} {}", done.code, done.err);
        }
        over.store(true, Ordering::Relaxed);
        meddler.join().unwrap()
    });
    assert!(swaps > 1_000, "only {swaps} swaps");
    let after = trees::describe(&outside, trees::Regard::All);
    for (name, was) in &before {
        assert_eq!(after.get(name), Some(was), "{}", name.display());
    }
    assert_eq!(after.len(), before.len());
    // A swap that came to nothing may have left a link in the target; the next restore is whole.
    home.run(&["-q", "restore", &from, "-t", to, "--overwrite", "always", "--delete"]).ok();
    trees::assert_equal(&tree, &target);
}
