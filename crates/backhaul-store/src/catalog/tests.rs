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

/// There may be a thousand clients, and each session asks for those of its own.
#[test]
fn a_clients_snapshots_are_found_without_a_look_at_those_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(&dir.path().join("catalog.sqlite")).unwrap();
    let clients = [4, 5, 6].map(|n| ClientId([n; 16]));
    for (n, (sequence, client)) in
        [3, 1, 2].into_iter().flat_map(|s| clients.map(|client| (s, client))).enumerate()
    {
        let (id, client_name) = (ObjectId([n as u8; 32]), String::new());
        let (ordinal, server_time, bytes_stored, objects_new) = (Ordinal(n as u64), 1, 1, 1);
        let row = SnapshotRow {
            id,
            ordinal,
            client,
            client_name,
            sequence,
            server_time,
            bytes_stored,
            objects_new,
        };
        put_snapshot(&catalog.db, &row).unwrap();
    }
    for client in clients {
        let rows = catalog.snapshots_of(client).unwrap();
        assert!(rows.iter().all(|row| row.client == client));
        assert_eq!(rows.iter().map(|row| row.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    }
    assert!(catalog.snapshots_of(ClientId([7; 16])).unwrap().is_empty());
    let sql = format!("EXPLAIN QUERY PLAN {}", snapshots_sql(OF_CLIENT));
    let plan: String = catalog.db.query_row(&sql, params![clients[0].0], |row| row.get(3)).unwrap();
    assert!(plan.starts_with("SEARCH"), "{plan}");
}
