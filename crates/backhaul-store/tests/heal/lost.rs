//! What cannot be mended is named, wanted, and sent again.

use std::fs;

use backhaul_object::ShortId;
use backhaul_object::ids::SessionId;
use backhaul_object::keys::VaultKey;
use backhaul_object::seal::identify_content;
use backhaul_store::catalog::Catalog;
use backhaul_store::check::{Mending, Part, Report};
use backhaul_store::index::Location;
use backhaul_store::revived::{self, Revived};
use backhaul_store::{Vault, rebuild, reclaim};

use crate::scene::*;

/// Beyond parity: what is readable is saved, the rest is named and wanted; a client that sends it again heals the old
/// snapshots with it, whatever kind of object it is.
#[test]
fn what_is_lost_is_wanted_and_heals_the_snapshots_that_lost_it() {
    for is_data in [true, false] {
        let dir = filled();
        let (data, meta) = packs(dir.path());
        let pack = if is_data { data } else { meta };
        let mut bytes = fs::read(&pack).unwrap();
        let (from, to) = (bytes.len() / 4, bytes.len() * 3 / 4);
        bytes[from..to].fill(0);
        fs::write(&pack, &bytes).unwrap();
        // Parity of data is weak enough for this, that of metadata must go, too.
        for sidecar in files(dir.path(), "parity") {
            fs::remove_file(sidecar).unwrap();
        }
        let vault = Vault::open(dir.path()).unwrap();
        let before = (vault.generation_for(ANA).unwrap(), vault.generation_for(BEA).unwrap());
        let numbers = |vault: &Vault| {
            let ids = [1, 2, 3].into_iter().flat_map(tree).map(|sealed| sealed.header.id);
            ids.map(|id| vault.ordinal(&id).unwrap()).collect::<Vec<_>>()
        };
        let numbered = numbers(&vault);
        let report = check(&vault, Mending::Mend);
        let lost: Vec<ShortId> = report
            .damage
            .iter()
            .filter_map(|damage| if let Part::Object(id) = damage.what { Some(id) } else { None })
            .collect();
        assert!(!lost.is_empty() && !report.is_sound() && report.affected.len() == 1, "{report:?}");
        let hit = report.affected[0].client;
        // The objects of the damaged pack that were readable are in a new one, and the old one is kept.
        assert!(!pack.exists() && !files(dir.path(), "quarantine").is_empty());
        let again = check(&vault, Mending::Look);
        assert_eq!(again.damage.len(), lost.len(), "{:?}", again.damage);
        assert!(lost.iter().all(|id| vault.find(id.prefix()).unwrap().is_empty()));
        let after = (vault.generation_for(ANA).unwrap(), vault.generation_for(BEA).unwrap());
        assert_eq!(
            (before.0 != after.0, before.1 != after.1),
            (hit == ANA, hit == BEA),
            "whose state is void"
        );
        // A second check finds no new loss.
        check(&vault, Mending::Mend);
        assert_eq!(vault.generation_for(hit).unwrap(), if hit == ANA { after.0 } else { after.1 });
        drop(vault);
        // The client reads everything anew and sends what is wanted.
        let vault = Vault::open(dir.path()).unwrap();
        let sequence = vault.last_sequence(hit).unwrap() + 1;
        let seed = match (hit == BEA, report.affected[0].sequence) {
            (true, _) => 3,
            (false, sequence) => sequence,
        };
        let listed = || Catalog::look(dir.path()).unwrap().lost().unwrap().len();
        assert_eq!(listed(), lost.len());
        back_up(&vault, hit, sequence, seed);
        assert_eq!(listed(), 0, "were it lost once more, that would be a new loss");
        let healed = check(&vault, Mending::Mend);
        assert!(healed.damage.is_empty() && healed.affected.is_empty(), "{:?}", healed.damage);
        assert_eq!(numbers(&vault), numbered, "everything has its old number");
        // And so it stays when the caches are made anew.
        let count = vault.snapshots(None).unwrap().len();
        drop(vault);
        rebuild::rebuild(dir.path(), [2; 16], Mending::Look, 79).unwrap();
        let vault = Vault::open(dir.path()).unwrap();
        assert!(check(&vault, Mending::Look).damage.is_empty());
        assert_eq!(vault.snapshots(None).unwrap().len(), count);
    }
}

/// What is sent again counts from the moment on in which it is durable: whoever asks after a kill is not told of it before.
#[test]
fn what_comes_back_is_there_only_when_it_is_durable() {
    for is_data in [true, false] {
        let dir = filled();
        let (data, meta) = packs(dir.path());
        let pack = if is_data { data } else { meta };
        let bytes = fs::read(&pack).unwrap();
        fs::write(&pack, vec![0; bytes.len()]).unwrap();
        files(dir.path(), "parity").into_iter().for_each(|sidecar| fs::remove_file(sidecar).unwrap());
        let vault = Vault::open(dir.path()).unwrap();
        let lost: Vec<_> = [1, 2, 3]
            .into_iter()
            .flat_map(tree)
            .filter(|sealed| vault.ordinal(&sealed.header.id).unwrap().is_some())
            .collect();
        check(&vault, Mending::Mend);
        let lost: Vec<_> =
            lost.into_iter().filter(|sealed| vault.ordinal(&sealed.header.id).unwrap().is_none()).collect();
        assert!(!lost.is_empty());
        let mut session = vault.begin(SessionId([77; 16]), ANA);
        let there = |vault: &Vault| {
            lost.iter()
                .filter(|sealed| {
                    let ordinal = vault.ordinal(&sealed.header.id).unwrap();
                    // Whoever is told of it must be able to read it.
                    ordinal.is_some_and(|ordinal| vault.get(ordinal).unwrap().header.id == sealed.header.id)
                })
                .count()
        };
        lost.iter().for_each(|sealed| append(&vault, &mut session, sealed));
        assert_eq!(there(&vault), lost.len());
        assert_eq!(there(&killed(dir.path()).1), 0);
        session.flush().unwrap();
        assert_eq!(there(&killed(dir.path()).1), lost.len());
        // Killed while the rows were written: one is torn, and the file says what it was to be.
        drop(session);
        let ordinal = vault.ordinal(&lost[0].header.id).unwrap().unwrap();
        let generation = vault.generation();
        drop(vault);
        let path = dir.path().join("index/places");
        let mut rows = fs::read(&path).unwrap();
        let row = &mut rows[ordinal.0 as usize * 10..][..10];
        let packed = u128::from_le_bytes([&row[..], &[0; 6]].concat().try_into().unwrap());
        let part = |shift: u32, bits: u32| (packed >> shift & ((1 << bits) - 1)) as u32;
        let at = Location { pack: part(50, 30), offset: part(24, 26), len: part(0, 24) };
        row[2..].fill(0);
        fs::write(&path, rows).unwrap();
        let nowhere = Location { pack: 999, ..at };
        for (generation, places) in [
            (generation, vec![(ordinal, nowhere)]),
            ([9; 16], vec![(ordinal, at)]),
            (generation, vec![(ordinal, at)]),
        ] {
            let is_right = generation != [9; 16] && places[0].1 == at;
            fs::write(dir.path().join(revived::FILE), Revived { generation, places }.encode()).unwrap();
            let vault = Vault::open(dir.path()).unwrap();
            assert_eq!(vault.get(ordinal).is_ok(), is_right);
            assert!(!dir.path().join(revived::FILE).exists());
        }
    }
}

/// A repair that was cut off after it had made objects lost finds them again in the pack that it had not yet removed.
#[test]
fn an_interrupted_repair_goes_on_and_loses_nothing_more() {
    let dir = filled();
    let (data, _) = packs(dir.path());
    let mut bytes = fs::read(&data).unwrap();
    let (from, to) = (bytes.len() / 4, bytes.len() / 2);
    bytes[from..to].fill(0);
    fs::write(&data, &bytes).unwrap();
    fs::remove_dir_all(dir.path().join("parity")).unwrap();
    let (whole, loc) = (tempfile::tempdir().unwrap(), dir.path().join("index/places"));
    let done = whole.path().join("done");
    let copied = std::process::Command::new("cp").arg("-a").arg(dir.path()).arg(&done).status().unwrap();
    assert!(copied.success());
    let vault = Vault::open(&done).unwrap();
    let lost = |report: &Report| {
        let object = |what: &Part| matches!(what, Part::Object(_));
        report.damage.iter().filter(|damage| object(&damage.what)).count()
    };
    let expected = lost(&check(&vault, Mending::Mend));
    drop(vault);
    // The places of the whole pack's objects are gone, the pack is still there.
    let number = Vault::open(dir.path()).unwrap();
    let ordinal = number.ordinal(&tree(1)[0].header.id).unwrap().unwrap();
    drop(number);
    let mut places = fs::read(&loc).unwrap();
    // A row's pack is in its upper 30 bits.
    let pack = |place: &[u8]| u32::from_le_bytes(place[6..].try_into().unwrap()) >> 2;
    let number = pack(&places[ordinal.0 as usize * 10..][..10]);
    for place in places.chunks_exact_mut(10).filter(|place| pack(place) == number) {
        place.fill(0);
    }
    fs::write(&loc, places).unwrap();
    let vault = Vault::open(dir.path()).unwrap();
    check(&vault, Mending::Mend);
    assert_eq!(lost(&check(&vault, Mending::Look)), expected);
    assert!(expected < 15, "{expected}");
}

/// A member of a bundle that is lost must be sent, too, not only the bundle.
#[test]
fn a_member_of_a_lost_bundle_is_wanted() {
    let dir = filled();
    let two = identify_content(&VaultKey::new([7; 32]).id_key(), b"two").0;
    let vault = Vault::open(dir.path()).unwrap();
    assert_eq!(vault.find(two.prefix()).unwrap().len(), 1);
    drop(vault);
    for path in files(dir.path(), "packs").into_iter().chain(files(dir.path(), "parity")) {
        if path.metadata().unwrap().len() > 100_000 || path.starts_with(dir.path().join("parity")) {
            fs::remove_file(path).unwrap();
        }
    }
    let vault = Vault::open(dir.path()).unwrap();
    check(&vault, Mending::Mend);
    assert!(vault.find(two.prefix()).unwrap().is_empty());
    back_up(&vault, ANA, 3, 1);
    assert_eq!(vault.find(two.prefix()).unwrap().len(), 1);
}

/// What a repair has replaced, and parity of packs that are gone, stay for a stated time, and longer while anything is lost.
#[test]
fn what_was_put_aside_goes_in_time_but_never_while_something_is_lost() {
    let dir = filled();
    let (data, _) = packs(dir.path());
    let whole = fs::read(&data).unwrap();
    flip(&data, 5_000);
    let orphan = dir.path().join("parity/ab").join("ab".repeat(32));
    fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    fs::write(&orphan, b"parity").unwrap();
    let vault = Vault::open(dir.path()).unwrap();
    let mended = check(&vault, Mending::Mend);
    assert!(mended.is_sound() && mended.aside.orphans == 1, "{mended:?}");
    let aside = |vault: &Vault| vault.aside().unwrap();
    let files_before = aside(&vault).files;
    assert!(files_before > 0 && aside(&vault).bytes >= whole.len() as u64);
    let prune = |vault: &Vault, now: u64| {
        let request = reclaim::Request { now, aside_kept: Some(1_000), ..Default::default() };
        vault.reclaim(&request, &mut ()).unwrap().aside_removed
    };
    assert_eq!(prune(&vault, 78), 0);
    assert_eq!((aside(&vault).orphans, aside(&vault).files), (0, files_before + 1));
    assert!(!orphan.exists());
    // A chunk that a snapshot needs is lost: what is left of its pack may be all that there is.
    let path = packs(dir.path()).0;
    let mut bytes = fs::read(&path).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].fill(0);
    fs::write(&path, bytes).unwrap();
    files(dir.path(), "parity").into_iter().for_each(|sidecar| fs::remove_file(sidecar).unwrap());
    check(&vault, Mending::Mend);
    assert!(!check(&vault, Mending::Look).is_sound());
    assert_eq!(prune(&vault, 99_000), 0);
    assert!(aside(&vault).files > files_before);
    for (client, sequence, seed) in [(ANA, 3, 1), (ANA, 4, 2), (BEA, 2, 3)] {
        back_up(&vault, client, sequence, seed);
    }
    assert!(check(&vault, Mending::Look).is_sound());
    assert!(prune(&vault, 99_000) > 0);
    assert_eq!(aside(&vault).files, 0);
    assert!(check(&vault, Mending::Look).is_sound());
}

/// What cannot be read is wanted; whoever sends it is not told that it is there already.
#[test]
fn what_is_there_and_cannot_be_read_is_stored_anew_when_it_is_sent() {
    let dir = filled();
    let chunk = &tree(1)[3];
    let at = files(dir.path(), "packs")
        .into_iter()
        .find_map(|path| {
            let bytes = fs::read(&path).unwrap();
            let place = bytes.windows(chunk.body.len()).position(|bytes| bytes == chunk.body)?;
            Some((path, place))
        })
        .unwrap();
    flip(&at.0, at.1 + 900);
    fs::remove_dir_all(dir.path().join("parity")).unwrap();
    let vault = Vault::open(dir.path()).unwrap();
    let ordinal = vault.ordinal(&chunk.header.id).unwrap().unwrap();
    assert!(vault.get(ordinal).is_err());
    let mut session = vault.begin(SessionId([7; 16]), BEA);
    append(&vault, &mut session, chunk);
    append(&vault, &mut session, chunk);
    append(&vault, &mut session, &tree(1)[4]);
    assert_eq!(session.added().0, 1, "once, and nothing that is whole");
    session.finish().unwrap();
    drop(vault);
    let vault = Vault::open(dir.path()).unwrap();
    assert_eq!(vault.ordinal(&chunk.header.id).unwrap(), Some(ordinal));
    assert!(vault.get(ordinal).unwrap().body == chunk.body);
    // The old pack is still damaged, and nothing that is needed is lost with it.
    assert!(check(&vault, Mending::Mend).is_sound());
    assert!(check(&vault, Mending::Look).damage.is_empty());
}
