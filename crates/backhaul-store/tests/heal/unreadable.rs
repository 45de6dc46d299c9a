//! Small files that cannot be read: their copies serve, and the vault opens.

use std::fs;
use std::path::Path;

use backhaul_store::check::Mending;
use backhaul_store::mark::State;
use backhaul_store::vault::Marking;
use backhaul_store::{Vault, rebuild};

use crate::scene::*;

/// Nobody can open it any more, whoever he is; what was in it is gone.
fn make_unreadable(path: &Path) {
    fs::remove_file(path).unwrap();
    std::os::unix::fs::symlink(path.file_name().unwrap(), path).unwrap();
}

#[test]
fn a_manifest_or_mark_that_cannot_be_read_keeps_no_vault_shut() {
    for mending in [Mending::Look, Mending::Mend] {
        let dir = filled();
        let vault = Vault::open(dir.path()).unwrap();
        let marking = Marking { state: State::Pinned, now: 50, grace: 0, reason: "kept" };
        vault.mark(ANA, 1, marking).unwrap();
        let (before, marks) = (dump(&vault), vault.marks().unwrap());
        drop(vault);
        let all = files(dir.path(), "snaps");
        let of = |end: &str| all.iter().find(|path| path.to_string_lossy().ends_with(end)).unwrap();
        make_unreadable(of(".snap"));
        make_unreadable(of(".mark"));
        let report = rebuild::rebuild(dir.path(), [1; 16], mending, 78).unwrap();
        assert_eq!(report.snapshots, 3);
        let vault = Vault::open(dir.path()).unwrap();
        assert!(dump(&vault) == before && vault.marks().unwrap() == marks);
        assert!(check(&vault, Mending::Mend).is_sound());
        assert!(check(&vault, Mending::Look).damage.is_empty());
        assert!(fs::read(of(".snap")).is_ok() && fs::read(of(".mark")).is_ok());
    }
}
