//! Small files that cannot be read: their copies serve, and the vault opens.

use std::fs;
use std::path::Path;

use backhaul_store::check::{Depth, Go, Mending, Request, Round};
use backhaul_store::mark::State;
use backhaul_store::vault::Marking;
use backhaul_store::{StoreError, Vault, rebuild};

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

/// Opens and reads fail for a while: nothing is given up, and nothing mended, by whoever looks meanwhile.
#[test]
fn a_pack_that_cannot_be_read_now_is_named_and_left_as_it_is() {
    let dir = filled();
    let vault = Vault::open(dir.path()).unwrap();
    let before = dump(&vault);
    let data = packs(dir.path()).0;
    let name = data.file_name().unwrap().to_str().unwrap();
    let sidecar = dir.path().join("parity").join(&name[..2]).join(name);
    for is_bad_too in [false, true] {
        let away = dir.path().join("away");
        fs::rename(&data, &away).unwrap();
        std::os::unix::fs::symlink(name, &data).unwrap();
        if is_bad_too {
            make_unreadable(&sidecar);
        }
        let whole = vault.scrub(&name.parse().unwrap(), Round::PackAndPapers, 80, &|_| Go::On).unwrap();
        for report in [whole, check(&vault, Mending::Mend)] {
            let of_pack = report.damage.iter().find(|damage| damage.what.to_string().contains("packs/"));
            assert!(of_pack.is_some_and(|damage| damage.why.contains("cannot be read now")), "{report:?}");
            assert!(!report.is_sound());
        }
        assert!(data.is_symlink() && !dir.path().join("quarantine").exists());
        fs::rename(&away, &data).unwrap();
        assert_eq!(dump(&vault), before);
        assert_eq!(check(&vault, Mending::Look).is_sound(), !is_bad_too);
    }
    // Of a pack that is damaged as well nobody knows what its parity would make good.
    let bytes = fs::read(&data).unwrap();
    flip(&data, 5_000);
    let report = check(&vault, Mending::Mend);
    assert!(!report.is_sound() && dump(&vault) == before, "{:?}", report.damage);
    fs::write(&data, bytes).unwrap();
    fs::remove_file(&sidecar).unwrap();
    assert!(check(&vault, Mending::Mend).is_sound());
    assert!(check(&vault, Mending::Look).damage.is_empty());
}

/// All packs are gone at once: their folder is not mounted.
#[test]
fn packs_whose_folder_is_not_there_are_not_given_up() {
    let dir = filled();
    let before = dump(&Vault::open(dir.path()).unwrap());
    let (packs, away) = (dir.path().join("packs"), dir.path().join("away"));
    fs::rename(&packs, &away).unwrap();
    fs::create_dir(&packs).unwrap();
    let vault = Vault::open(dir.path()).unwrap();
    let report = check(&vault, Mending::Mend);
    assert!(report.damage.iter().any(|damage| damage.why.contains("is their folder there")), "{report:?}");
    fs::remove_dir_all(&packs).unwrap();
    fs::rename(&away, &packs).unwrap();
    assert_eq!(dump(&vault), before);
    assert!(check(&vault, Mending::Look).damage.is_empty());
}

/// Whatever is left to tell of them: nothing is made from a folder that is not mounted, not even when some packs were
/// written into it meanwhile.
#[test]
fn no_index_is_made_while_most_packs_are_away() {
    type Harm = fn(&Path);
    let forget = |root: &Path| fs::remove_file(root.join("catalog.sqlite")).unwrap();
    let forget_snapshots = |root: &Path| {
        fs::remove_file(root.join("catalog.sqlite")).unwrap();
        fs::remove_dir_all(root.join("snaps")).unwrap();
        fs::remove_dir_all(root.join("copies")).unwrap();
    };
    let one_is_left = |root: &Path| {
        let (away, packs) = (files(root, "away").remove(0), root.join("packs"));
        let folder = packs.join(away.parent().unwrap().file_name().unwrap());
        fs::create_dir_all(&folder).unwrap();
        fs::copy(&away, folder.join(away.file_name().unwrap())).unwrap();
    };
    let harms: [(Harm, &str); 4] = [
        (|_| (), "packs that the catalog knows"),
        (one_is_left, "has 1 of the"),
        (forget, "3 snapshots need some"),
        (forget_snapshots, "parity of"),
    ];
    for (harm, says) in harms {
        let dir = filled();
        let before = dump(&Vault::open(dir.path()).unwrap());
        let (packs, away) = (dir.path().join("packs"), dir.path().join("away"));
        fs::rename(&packs, &away).unwrap();
        fs::create_dir(&packs).unwrap();
        harm(dir.path());
        let index = fs::read(dir.path().join("index/ids")).unwrap();
        for mending in [Mending::Look, Mending::Mend] {
            let error = rebuild::rebuild(dir.path(), [2; 16], mending, 78).unwrap_err();
            assert!(matches!(error, StoreError::PacksAway { .. }), "{error}");
            assert!(error.to_string().contains(says), "{error}");
        }
        assert!(fs::read(dir.path().join("index/ids")).unwrap() == index);
        assert_eq!(files(dir.path(), "packs").len(), usize::from(says.contains("has 1")));
        fs::remove_dir_all(&packs).unwrap();
        fs::rename(&away, &packs).unwrap();
        rebuild::rebuild(dir.path(), [2; 16], Mending::Mend, 78).unwrap();
        if dir.path().join("snaps").exists() {
            assert_eq!(dump(&Vault::open(dir.path()).unwrap()), before);
        }
    }
}

/// Who says that they are lost gets a vault to go on with, and what is lost is named.
#[test]
fn an_index_is_made_without_packs_that_are_lost() {
    let dir = filled();
    fs::remove_dir_all(dir.path().join("packs")).unwrap();
    let report = rebuild::rebuild_from_what_is_left(dir.path(), [2; 16], Mending::Mend, 78).unwrap();
    assert_eq!((report.packs, report.snapshots), (0, 0));
    let vault = Vault::open(dir.path()).unwrap();
    let named = check(&vault, Mending::Look).damage;
    assert_eq!(named.iter().filter(|damage| damage.what.to_string().ends_with(".snap")).count(), 3);
    back_up(&vault, BEA, 2, 3);
    assert_eq!(vault.snapshots(Some(BEA)).unwrap().len(), 1);
}

/// Parity is made of what was written, or not at all, and never over the only thing that can mend it.
#[test]
fn no_sidecar_is_made_from_a_pack_that_is_not_what_its_name_says() {
    let dir = filled();
    let vault = Vault::open(dir.path()).unwrap();
    let data = packs(dir.path()).0;
    let whole = fs::read(&data).unwrap();
    let name = data.file_name().unwrap().to_str().unwrap().to_owned();
    let sidecar = dir.path().join("parity").join(&name[..2]).join(&name);
    let good = fs::read(&sidecar).unwrap();
    flip(&data, 5_000);
    fs::write(&sidecar, [&good[..], b"x"].concat()).unwrap();
    let request = Request { depth: Depth::Structure, mending: Mending::Mend, now: 77 };
    let report = vault.check(&request, None, &|_| Go::On).unwrap();
    let kept = files(dir.path(), "quarantine").into_iter().map(|path| fs::read(path).unwrap());
    assert!(fs::read(&data).is_ok_and(|now| now == whole), "{:?}", report.damage);
    assert!(kept.into_iter().any(|bytes| bytes == [&good[..], b"x"].concat()));
    assert!(fs::read(&sidecar).unwrap() == good && check(&vault, Mending::Look).damage.is_empty());
}

/// Between its last byte and its place a pack is in `open/`. Whoever opens the vault in that moment moves it on; if it cannot
/// even be looked at, it stays what it is, and the vault shut.
#[test]
fn a_pack_on_its_way_that_cannot_be_looked_at_is_not_swept_away() {
    let dir = filled();
    let before = dump(&Vault::open(dir.path()).unwrap());
    for number in 1..=files(dir.path(), "packs").len() {
        let open = dir.path().join(format!("open/{number}.pack"));
        std::os::unix::fs::symlink(open.file_name().unwrap(), &open).unwrap();
        let error = Vault::open(dir.path()).err().unwrap();
        assert!(matches!(error, StoreError::Io { .. }), "{number}: {error}");
        assert!(open.is_symlink(), "{number}");
        fs::remove_file(&open).unwrap();
    }
    assert_eq!(dump(&Vault::open(dir.path()).unwrap()), before);
}

/// What is being written when the process ends is whole when it ends with a whole record; of what cannot be read nobody knows.
#[test]
fn a_pack_in_the_making_that_cannot_be_read_keeps_the_vault_shut_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let root = crate::open::crashed(dir.path());
    let (path, away) = (root.join("open/1.pack"), dir.path().join("away"));
    fs::rename(&path, &away).unwrap();
    std::os::unix::fs::symlink("1.pack", &path).unwrap();
    let error = Vault::open(&root).err().unwrap();
    assert!(matches!(error, StoreError::Io { .. }) && path.is_symlink(), "{error}");
    fs::rename(&away, &path).unwrap();
    assert_eq!(crate::open::there(&Vault::open(&root).unwrap()), [true; 6]);
}
