//! Packs that were being written when the process ended, and were damaged since.

use std::fs;
use std::path::{Path, PathBuf};

use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::{SessionId, VaultId};
use backhaul_object::{Kind, Sealed};
use backhaul_store::check::Mending;
use backhaul_store::{StoreError, Vault, rebuild};

use crate::scene::*;

const RECORD: usize = 24;

fn chunks() -> Vec<Sealed> {
    (0..6).map(|n| object(Kind::Chunk, &[], &noise(n, 9_000))).collect()
}

/// A vault as a crash leaves it: of one session, whose objects were acknowledged and are in a pack that is not sealed.
pub fn crashed(dir: &Path) -> PathBuf {
    let (root, copy) = (dir.join("v"), dir.join("crashed"));
    let vault = Vault::create(&root, &Descriptor::managed(VaultId([9; 16])), [1; 16]).unwrap();
    let mut session = vault.begin(SessionId([4; 16]), ANA);
    chunks().iter().for_each(|chunk| append(&vault, &mut session, chunk));
    session.flush().unwrap();
    let copied = std::process::Command::new("cp").arg("-a").arg(&root).arg(&copy).status().unwrap();
    assert!(copied.success());
    copy
}

fn rebuilt(root: &Path) -> (rebuild::Report, Vault) {
    fs::remove_file(root.join("catalog.sqlite")).unwrap();
    fs::remove_dir_all(root.join("index")).unwrap();
    let report = rebuild::rebuild(root, [2; 16], Mending::Look, 78).unwrap();
    (report, Vault::open(root).unwrap())
}

pub fn there(vault: &Vault) -> Vec<bool> {
    let has = |chunk: &Sealed| {
        let ordinal = vault.ordinal(&chunk.header.id).unwrap();
        ordinal.is_some_and(|ordinal| vault.get(ordinal).unwrap().body == chunk.body)
    };
    chunks().iter().map(has).collect()
}

/// Whatever is damaged of it costs only what it touches, and the file is kept as it was.
#[test]
fn a_rebuild_loses_nothing_of_a_pack_in_the_making_but_what_is_damaged() {
    let record = RECORD + chunks()[0].header.encode().len() + chunks()[0].body.len();
    // Head, first record, one in the middle, the last, the length of the last.
    let last = 64 + 5 * record;
    for (at, lost) in [(2, 6), (64 + 200, 0), (64 + 2 * record, 2), (last + 300, 5), (last + 10, 5)] {
        let dir = tempfile::tempdir().unwrap();
        let root = crashed(dir.path());
        let path = root.join("open/1.pack");
        flip(&path, at);
        let bytes = fs::read(&path).unwrap();
        if let Err(error) = Vault::open(&root) {
            assert!(error.to_string().contains("--rebuild-index") || at == 2, "{error}");
        }
        assert!(fs::read(&path).is_ok_and(|now| now == bytes), "byte {at}: opening has changed it");
        let (report, vault) = rebuilt(&root);
        assert_eq!(there(&vault), (0..6).map(|n| n != lost).collect::<Vec<_>>(), "byte {at}");
        assert_eq!(report.damage.len(), 1, "byte {at}: {:?}", report.damage);
        assert!(report.damage[0].what.to_string() == "open/1.pack" && report.damage[0].mended.is_some());
        let kept = files(&root, "quarantine");
        assert!(kept.len() == 1 && fs::read(&kept[0]).unwrap() == bytes, "byte {at}");
        assert!(files(&root, "open").is_empty() && check(&vault, Mending::Look).is_sound());
    }
}

/// What a crash leaves at the end is no damage.
#[test]
fn zeroes_and_half_a_footer_at_the_end_are_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    for tail in [&[0; 5_000][..], b"BHFT\0\0", b""] {
        let root = crashed(dir.path());
        let path = root.join("open/1.pack");
        let bytes = [&fs::read(&path).unwrap(), tail].concat();
        fs::write(&path, bytes).unwrap();
        let (report, vault) = rebuilt(&root);
        assert!(report.damage.is_empty() && there(&vault) == [true; 6], "{:?}", report.damage);
        assert!(!root.join("quarantine").exists());
        drop(vault);
        fs::remove_dir_all(&root).unwrap();
        fs::remove_dir_all(dir.path().join("v")).unwrap();
    }
}

/// That it cannot be read now says nothing of what is in it.
#[test]
fn a_rebuild_that_cannot_read_a_pack_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = crashed(dir.path());
    let (path, away) = (root.join("open/1.pack"), root.join("away"));
    fs::rename(&path, &away).unwrap();
    std::os::unix::fs::symlink("1.pack", &path).unwrap();
    let before = fs::read(root.join("index/ids")).unwrap();
    let error = rebuild::rebuild(&root, [2; 16], Mending::Mend, 78).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }) && error.to_string().contains("1.pack"), "{error}");
    fs::rename(&away, &path).unwrap();
    assert!(fs::read(root.join("index/ids")).unwrap() == before);
    assert_eq!(there(&Vault::open(&root).unwrap()), [true; 6]);
}
