//! A pack that was being written lies on a disk that cannot read all of it any more.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;
use std::fs;
use std::io::Error;

use backhaul_object::ids::{SessionId, VaultId};
use backhaul_object::{Kind, ObjectId, Sealed};
use rustix::io::Errno;

use super::*;
use crate::blobs::LocalBlobs;
use crate::tests::{ANA, Tampered, create, sealed};

const NAME: &str = "open/00000007.pack";
/// A disk loses so much at a time.
const SECTOR: u64 = 4_096;

/// What a session has written and not committed: the file, and the objects.
fn half_written(dir: &Path) -> (Vec<u8>, Vec<Sealed>) {
    let vault = create(dir);
    let chunks: Vec<Sealed> = (0..20).map(|n| sealed(Kind::Chunk, &[], n)).collect();
    let mut session = vault.begin(SessionId([1; 16]), ANA);
    for chunk in &chunks {
        session.append(chunk, &[]).unwrap();
    }
    session.flush().unwrap();
    let open = LocalBlobs::new(dir).list("open").unwrap();
    (fs::read(dir.join(&open[0])).unwrap(), chunks)
}

#[test]
fn whole_records_around_a_bad_sector_are_saved() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, chunks) = half_written(&dir.path().join("other"));
    let sectors = bytes.len() as u64 / SECTOR;
    assert!(sectors > 10);
    for bad in [0, 1, 5, sectors] {
        let root = dir.path().join(bad.to_string());
        drop(create(&root));
        fs::write(root.join(NAME), &bytes).unwrap();
        let lost = bad * SECTOR..(bad + 1) * SECTOR;
        let before_read = move |name: &str, offset: u64, len: usize| {
            let is_hit = name == NAME && offset < lost.end && offset + len as u64 > lost.start;
            let source = Error::from_raw_os_error(Errno::IO.raw_os_error());
            if is_hit { Err(StoreError::Io { doing: "read", path: name.into(), source }) } else { Ok(()) }
        };
        let disk = LocalBlobs::new(&root);
        let spool = Tampered { disk, before_read: Box::new(before_read), before_adopt: Box::new(|_| {}) };
        let mut report = Report::default();
        let saved = seal_open((&root, &spool), VaultId([9; 16]), 1, &mut report).unwrap();

        let disk = LocalBlobs::new(&root);
        assert_eq!(disk.list("open").unwrap(), Vec::<String>::new());
        assert_eq!(fs::read_dir(root.join("quarantine")).unwrap().count(), 1, "it is put aside, whole");
        let packs = disk.list("packs").unwrap();
        assert_eq!((packs.len(), saved.len()), (1, 1));
        let len = disk.len(&packs[0]).unwrap().unwrap();
        let rows = scan(len, &|offset, len| disk.read(&packs[0], offset, len)).unwrap();
        let id = |row: &Row| numbers::id_at(&disk, &packs[0], row.offset).unwrap().unwrap();
        let there: HashSet<ObjectId> = rows.iter().map(id).collect();
        // A record is as long as a little less than a sector: one or two are hit.
        let missing = chunks.iter().filter(|chunk| !there.contains(&chunk.header.id)).count();
        assert!((1..=3).contains(&missing) && there.len() == 20 - missing, "sector {bad}: {missing} missing");
        let [damage] = &report.damage[..] else { panic!("{:?}", report.damage) };
        assert_eq!(damage.why, "the disk cannot read all of it");
        let count = format!("its {} whole records are in a new pack", there.len());
        assert!(damage.mended.as_ref().unwrap().starts_with(&count), "{:?}", damage.mended);
    }
}
