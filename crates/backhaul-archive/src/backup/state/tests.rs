//! State files against a plain map, cut and damaged anywhere.
#![allow(clippy::unwrap_used, reason = "tests")]

use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::VaultId;
use backhaul_object::keys::VaultKey;
use proptest::prelude::*;

use super::*;
use crate::backup::Patches;

fn parameters(generation: u8) -> VaultParameters {
    let key = VaultKey::new([1; 32]);
    VaultParameters {
        descriptor: Descriptor::managed(VaultId([2; 16])),
        id_key: key.id_key(),
        chunker_key: key.chunker_key(),
        generation: [generation; 16],
        patches: Patches::Refused,
    }
}

fn record(path: &str, size: u64) -> Record {
    Record {
        path: path.as_bytes().to_vec(),
        fingerprint: Fingerprint { size, ..Fingerprint::default() },
        racy: size.is_multiple_of(2),
        attributes: size.is_multiple_of(3),
        flags: InodeFlags { bits: size as u32 * 7, project: size as u32 * 5 },
        content: Content::Inline(path.as_bytes().to_vec()),
    }
}

/// Writes records as a run does, and leaves the run as a crash would.
fn run(dir: &Path, name: &StateName, records: &[Record], durable: u64) -> Journal {
    let (_, mut journal) = open(dir, name).unwrap();
    for (i, record) in records.iter().enumerate() {
        journal.file(record, i as u64 + 1);
        journal.node(i as u64, i as u64 + 1);
    }
    journal.advance(durable).unwrap();
    journal
}

#[test]
fn walk_order_puts_a_directory_before_its_longer_namesakes() {
    let mut paths = ["/a.b", "/a/z", "/a", "/a/b/c", "/a/b", "/a-"];
    paths.sort_by(|a, b| file::walk_order(a.as_bytes(), b.as_bytes()));
    assert_eq!(paths, ["/a", "/a/b", "/a/b/c", "/a/z", "/a-", "/a.b"]);
}

#[test]
fn what_was_committed_is_found_and_another_generation_is_void() {
    let dir = tempfile::tempdir().unwrap();
    let name = StateName::new(&["/home".into()], &parameters(1));
    let records = [record("/home/a", 1), record("/home/b/c", 2), record("/home/d", 3)];
    let journal = run(dir.path(), &name, &records, 0);
    PendingState { journal }.accept().unwrap();
    let (nodes, mut found) = peek(dir.path(), &name).unwrap().split();
    assert_eq!(nodes.len(), 3);
    assert_eq!(found.find(b"/home/a"), Some(records[0].clone()));
    assert_eq!(found.find(b"/home/b/x"), None);
    assert_eq!(found.find(b"/home/d"), Some(records[2].clone()));
    let other = StateName::new(&["/home".into()], &parameters(2));
    assert_eq!(peek(dir.path(), &other).unwrap().split().1.find(b"/home/a"), None);
}

#[test]
fn a_path_that_is_too_long_to_be_remembered_costs_nobody_else_that() {
    let dir = tempfile::tempdir().unwrap();
    let name = StateName::new(&["/h".into()], &parameters(1));
    let long = record(&format!("/h/b/{}", "deep/".repeat(7_000)), 2);
    let records = [record("/h/a", 1), long.clone(), record("/h/c", 3)];
    PendingState { journal: run(dir.path(), &name, &records, 0) }.accept().unwrap();
    let (_, mut found) = peek(dir.path(), &name).unwrap().split();
    assert_eq!(found.find(b"/h/a"), Some(records[0].clone()));
    assert_eq!(found.find(&long.path), None);
    assert_eq!(found.find(b"/h/c"), Some(records[2].clone()));
}

#[test]
fn an_interrupted_run_keeps_exactly_what_was_durable_and_the_rest_of_the_run_before() {
    let dir = tempfile::tempdir().unwrap();
    let name = StateName::new(&["/h".into()], &parameters(1));
    let old = [record("/h/a", 1), record("/h/b", 1), record("/h/c", 1)];
    PendingState { journal: run(dir.path(), &name, &old, 0) }.accept().unwrap();
    // Blocks are written when full: a long record makes sure of that.
    let mut big = record("/h/a", 7);
    big.path = format!("/h/a{}", "x".repeat(30_000)).into_bytes();
    let new: Vec<Record> = [record("/h/a", 9), big.clone(), big.clone(), big, record("/h/b", 9)].into();
    drop(run(dir.path(), &name, &new, 4));
    let (known, journal) = open(dir.path(), &name).unwrap();
    drop(journal);
    let mut found = known.split().1;
    assert_eq!(found.find(b"/h/a").unwrap().fingerprint.size, 9);
    assert_eq!(found.find(b"/h/b").unwrap().fingerprint.size, 1);
    assert_eq!(found.find(b"/h/c").unwrap().fingerprint.size, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_damaged_file_yields_a_true_prefix(count in 0usize..60, at in 0usize..8_000, flip: bool) {
        let dir = tempfile::tempdir().unwrap();
        let name = StateName::new(&["/h".into()], &parameters(1));
        let records: Vec<Record> = (0..count).map(|i| record(&format!("/h/{i:04}"), i as u64)).collect();
        PendingState { journal: run(dir.path(), &name, &records, 0) }.accept().unwrap();
        let path = name.path(dir.path(), "state");
        let mut bytes = fs::read(&path).unwrap();
        let at = at % bytes.len();
        if flip { bytes[at] ^= 0x40 } else { bytes.truncate(at) }
        fs::write(&path, bytes).unwrap();
        let mut found = peek(dir.path(), &name).unwrap().split().1;
        for record in &records {
            let seen = found.find(&record.path);
            prop_assert!(seen.is_none() || seen.as_ref() == Some(record));
        }
    }
}
