//! A catalog of an earlier time, put back or without its log: what it does not know is neither lost nor written over.

use std::fs;
use std::path::Path;

use backhaul_object::ids::{SessionId, VaultId};
use backhaul_object::{Kind, Sealed};
use backhaul_store::check::Mending;
use backhaul_store::pack::{Class, Head, encode_record};
use backhaul_store::{Ordinal, Vault, rebuild};

use crate::scene::*;

/// Without parity, which comes when it is ready.
const KILLED: [&str; 9] = [
    "acknowledged",
    "catalog.sqlite",
    "catalog.sqlite-wal",
    "copies",
    "index",
    "open",
    "packs",
    "snaps",
    "vault.desc",
];

fn copy(from: &Path, to: &Path, names: &[&str]) {
    for name in names.iter().filter(|name| from.join(name).exists()) {
        let _ = fs::remove_dir_all(to.join(name));
        let copied = std::process::Command::new("cp").arg("-a").arg(from.join(name)).arg(to).status();
        assert!(copied.unwrap().success());
    }
}

/// A vault as a process leaves it that is killed, with these files as they were before.
fn killed(root: &Path, earlier: &Path, old: &[&str]) -> tempfile::TempDir {
    let killed = tempfile::tempdir().unwrap();
    copy(root, killed.path(), &KILLED);
    fs::remove_file(killed.path().join("catalog.sqlite-wal")).unwrap();
    copy(earlier, killed.path(), old);
    killed
}

/// The vault is refused and left as it was; a rebuild has all that was there before, and these.
fn assert_refused(root: &Path, before: &str, chunks: &[&Sealed], case: &str) {
    let read = |below: &str| -> Vec<Vec<u8>> {
        files(root, below).into_iter().map(|path| fs::read(path).unwrap()).collect()
    };
    let found = (read("index"), read("open"));
    let error = Vault::open(root).err().unwrap().to_string();
    assert!(error.contains("earlier time") && error.contains("--rebuild-index"), "{case}: {error}");
    assert!((read("index"), read("open")) == found, "{case}: something was cut or removed");
    let report = rebuild::rebuild(root, [2; 16], Mending::Look, 78).unwrap();
    assert!(report.damage.is_empty(), "{case}: {:?}", report.damage);
    let vault = Vault::open(root).unwrap();
    let mut numbers = Vec::new();
    for chunk in chunks {
        let number = vault.ordinal(&chunk.header.id).unwrap().unwrap();
        assert_eq!(vault.get(number).unwrap().body, chunk.body, "{case}");
        numbers.push(format!("object {} ", number.0));
    }
    let is_new = |line: &&str| numbers.iter().any(|number| line.starts_with(number));
    let now = dump(&vault);
    assert!(now.lines().filter(|line| !is_new(line)).eq(before.lines()), "{case}");
    assert!(check(&vault, Mending::Look).is_sound(), "{case}");
}

fn chunk(seed: u64) -> Sealed {
    object(Kind::Chunk, &[], &noise(seed, 9_000))
}

/// What an earlier catalog does not know is not removed, and its numbers are not given out again.
#[test]
fn a_catalog_of_an_earlier_time_is_refused_before_anything_is_lost_by_it() {
    let (dir, earlier) = (filled(), tempfile::tempdir().unwrap());
    copy(dir.path(), earlier.path(), &["catalog.sqlite", "index"]);
    let vault = Vault::open(dir.path()).unwrap();
    back_up(&vault, BEA, 2, 9);
    back_up(&vault, ANA, 3, 10);
    let before = dump(&vault);
    // Acknowledged, and in a pack that is not sealed.
    let chunk = chunk(5_000);
    let mut session = vault.begin(SessionId([77; 16]), ANA);
    append(&vault, &mut session, &chunk);
    session.flush().unwrap();
    for old in [&["catalog.sqlite"][..], &[], &["catalog.sqlite", "index"]] {
        let killed = killed(dir.path(), earlier.path(), old);
        assert_refused(killed.path(), &before, &[&chunk], &format!("{old:?}"));
    }
}

/// Nothing of the later time is in a sealed pack: it is in one that the catalog does not know, or knows as shorter.
#[test]
fn a_catalog_of_an_earlier_time_is_refused_where_only_packs_in_the_making_are_later() {
    let (dir, earlier, later) = (filled(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let caches = ["catalog.sqlite", "index"];
    copy(dir.path(), earlier.path(), &caches);
    let vault = Vault::open(dir.path()).unwrap();
    let before = dump(&vault);
    let (first, second) = (chunk(5_000), chunk(5_001));
    let mut session = vault.begin(SessionId([77; 16]), ANA);
    append(&vault, &mut session, &first);
    session.flush().unwrap();
    for old in [&caches[..1], &caches[..], &[]] {
        let killed = killed(dir.path(), earlier.path(), old);
        assert_refused(killed.path(), &before, &[&first], &format!("{old:?}, unknown"));
    }
    copy(dir.path(), later.path(), &["catalog.sqlite", "catalog.sqlite-wal", "index"]);
    append(&vault, &mut session, &second);
    session.flush().unwrap();
    // With its log it knows of the first, and would cut the pack after it.
    let killed = killed(dir.path(), later.path(), &["catalog.sqlite", "catalog.sqlite-wal", "index"]);
    assert_refused(killed.path(), &before, &[&first, &second], "known");
}

/// What nobody was told to be there may go. Where nobody knows whether somebody was, it is kept.
#[test]
fn what_a_kill_leaves_in_open_goes_if_it_was_not_acknowledged_and_is_else_put_aside() {
    let dir = filled();
    let vault = Vault::open(dir.path()).unwrap();
    let before = dump(&vault);
    let mut session = vault.begin(SessionId([77; 16]), ANA);
    append(&vault, &mut session, &chunk(5_000));
    let left = || {
        let copy_of = tempfile::tempdir().unwrap();
        copy(dir.path(), copy_of.path(), &KILLED);
        let [open] = files(copy_of.path(), "open").try_into().unwrap();
        let bytes = fs::read(&open).unwrap();
        (copy_of, open, bytes)
    };
    let witness = |root: &Path| root.join("acknowledged");
    let opened = |root: &Path| {
        let vault = Vault::open(root).unwrap();
        assert!(files(root, "open").is_empty() && dump(&vault) == before);
        assert!(check(&vault, Mending::Look).damage.is_empty());
        files(root, "quarantine").iter().map(|kept| fs::read(kept).unwrap()).collect::<Vec<_>>()
    };
    assert!(opened(left().0.path()).is_empty());
    // Nobody has counted, or what was counted cannot be read, or it is of another index.
    let other = tempfile::tempdir().unwrap();
    copy(dir.path(), other.path(), &KILLED);
    rebuild::rebuild(other.path(), [3; 16], Mending::Look, 78).unwrap();
    for case in 0..3 {
        let (root, open, bytes) = left();
        match case {
            0 => fs::remove_file(witness(root.path())).unwrap(),
            1 => flip(&witness(root.path()), 25),
            _ => drop(fs::copy(witness(other.path()), witness(root.path())).unwrap()),
        }
        assert!(matches!(&opened(root.path())[..], [kept] if *kept == bytes), "{case}");
        // From here on it is counted again.
        fs::write(&open, &bytes).unwrap();
        assert_eq!(opened(root.path()).len(), 1, "{case}");
        // A pack in which nothing is, is worth nothing in any case.
        fs::remove_file(witness(root.path())).unwrap();
        fs::write(&open, [&bytes[..64], &[0; 5_000]].concat()).unwrap();
        assert_eq!(opened(root.path()).len(), 1, "{case}");
    }
}

/// What was lost and comes back has its old number: no count tells whether it was acknowledged.
#[test]
fn what_came_back_and_the_catalog_does_not_know_of_is_put_aside() {
    let dir = filled();
    let pack = packs(dir.path()).0;
    fs::write(&pack, vec![0; fs::metadata(&pack).unwrap().len() as usize]).unwrap();
    files(dir.path(), "parity").into_iter().for_each(|sidecar| fs::remove_file(sidecar).unwrap());
    let vault = Vault::open(dir.path()).unwrap();
    check(&vault, Mending::Mend);
    let lost = |sealed: &Sealed| vault.ordinal(&sealed.header.id).unwrap().is_none();
    let back = [1, 2, 3].into_iter().flat_map(tree).find(lost).unwrap();
    let mut session = vault.begin(SessionId([77; 16]), ANA);
    append(&vault, &mut session, &back);
    let root = tempfile::tempdir().unwrap();
    copy(dir.path(), root.path(), &KILLED);
    let [open] = files(root.path(), "open").try_into().unwrap();
    let bytes = fs::read(&open).unwrap();
    drop(Vault::open(root.path()).unwrap());
    let kept = files(root.path(), "quarantine");
    assert!(!open.exists() && kept.len() == 1 && fs::read(&kept[0]).unwrap() == bytes);
}

/// What reclaim was moving when it was killed is where it was, too.
#[test]
fn what_was_being_moved_is_not_put_aside() {
    let dir = filled();
    let head = |session| Head { class: Class::Data, vault: VaultId([9; 16]), session, client: ANA }.encode();
    let chunk = &tree(1)[0];
    let record = encode_record(Ordinal(0), &chunk.header.encode(), &chunk.body);
    for (number, session, kept) in [(50, 0, 0), (51, 5, 1)] {
        let open = dir.path().join(format!("open/{number}.pack"));
        fs::write(&open, [&head(SessionId([session; 16]))[..], &record].concat()).unwrap();
        drop(Vault::open(dir.path()).unwrap());
        assert!(!open.exists() && files(dir.path(), "quarantine").len() == kept, "session {session}");
    }
}

/// Whatever the catalog before had: what a rebuild finds is all there is, be it less.
#[test]
fn a_rebuilt_catalog_is_the_newest() {
    let dir = filled();
    let vault = Vault::open(dir.path()).unwrap();
    back_up(&vault, BEA, 2, 9);
    let there = files(dir.path(), "packs");
    back_up(&vault, BEA, 3, 10);
    drop(vault);
    let newest = files(dir.path(), "packs").into_iter().filter(|pack| !there.contains(pack));
    newest.for_each(|pack| fs::remove_file(pack).unwrap());
    rebuild::rebuild(dir.path(), [1; 16], Mending::Look, 78).unwrap();
    assert_eq!(Vault::open(dir.path()).unwrap().snapshots(Some(BEA)).unwrap().len(), 2);
}
