//! Catalogs of earlier and of later versions.
#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;

/// A catalog as a Backhaul left it that knew only the first `version` migrations: a pack, and a snapshot.
fn of_version(version: usize, path: &Path) {
    let db = Connection::open(path).unwrap();
    sums::register(&db).unwrap();
    MIGRATIONS[..version].iter().for_each(|sql| db.execute_batch(sql).unwrap());
    db.execute(
        "INSERT INTO meta (only, generation, objects, members) VALUES (1, ?1, 7, 2)",
        params![[3u8; 16]],
    )
    .unwrap();
    db.execute("INSERT INTO packs VALUES (1, ?1, 0, ?2, ?2, 900, 7)", params![[4u8; 32], [5u8; 16]]).unwrap();
    db.execute(
        "INSERT INTO snapshots VALUES (?1, 6, ?2, 'desk', 1, 1000, 900, 7)",
        params![[6u8; 32], [5u8; 16]],
    )
    .unwrap();
    if version >= 4 {
        sums::reset(&db).unwrap();
    }
    db.pragma_update(None, "user_version", version as i64).unwrap();
}

#[test]
fn a_catalog_of_every_earlier_version_is_taken_over_with_what_it_holds() {
    for version in 1..=MIGRATIONS.len() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        of_version(version, &path);
        for _ in 0..2 {
            let catalog = Catalog::open(&path).unwrap();
            let (generation, counts) = catalog.meta().unwrap().unwrap();
            assert_eq!((generation, counts.objects, counts.contents), ([3; 16], 7, 2), "version {version}");
            assert_eq!(catalog.packs().unwrap()[0].name, Some(PackId([4; 32])));
            assert_eq!(catalog.snapshots().unwrap()[0].client_name, "desk");
            assert_eq!(catalog.index_version().unwrap(), 1, "the index is as old, and is converted");
            catalog.verify().unwrap();
        }
    }
}

#[test]
fn a_catalog_of_a_later_version_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.sqlite");
    drop(Catalog::open(&path).unwrap());
    let later = MIGRATIONS.len() as i64 + 1;
    Connection::open(&path).unwrap().pragma_update(None, "user_version", later).unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = Catalog::open(&path).err().unwrap();
    assert!(matches!(error, StoreError::NewerCatalog { found, .. } if found == later), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// What changed while only an earlier version could see it is not taken over as if it were right.
#[test]
fn a_changed_row_of_an_earlier_version_is_noticed_before_it_is_summed_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.sqlite");
    of_version(4, &path);
    let db = Connection::open(&path).unwrap();
    db.execute("UPDATE packs SET bytes = 901", []).unwrap();
    drop(db);
    assert!(matches!(Catalog::open(&path).err(), Some(StoreError::Damaged { .. })));
}
